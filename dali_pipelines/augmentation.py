"""What the augmentations may do: one frozen configuration, and the published tables as presets.

Sources: nnU-Net v2, `nnUNetTrainer.get_training_transforms`; NVIDIA DeepLearningExamples, nnU-Net,
`data_loading/dali_loader.py`.
"""

import math
from dataclasses import dataclass, fields
from typing import Literal

from storage.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Probabilities and ranges; the defaults are nnU-Net v2's. Probability 0 leaves an operation out of the graph.

    `*_modality_probability` is drawn for each modality of a sample that was chosen.
    Raises InputError for probabilities outside 0 to 1, and for ranges that are none.
    """

    mirror_probability: float = 0.5
    """Probability of mirroring, for each axis."""
    rotation_probability: float = 0.2
    """Probability of a rotation."""
    rotation_degrees: Range = (-30.0, 30.0)
    """Lowest and highest angle for each axis; in 2-D about the slice's normal only."""
    scale_probability: float = 0.2
    """Probability of a zoom."""
    scale_range: Range = (0.7, 1.4)
    """Extent that the patch shows: 1.4 shows more of the case, smaller."""
    noise_probability: float = 0.1
    """Probability of Gaussian noise on all modalities."""
    noise_range: Range = (0.0, 0.1)
    """Lowest and highest strength of the noise, of intensities with standard deviation 1."""
    noise_drawn_as: Literal["variance", "sigma"] = "variance"
    """Whether the noise's range is of its variance or of its standard deviation (sigma)."""
    blur_probability: float = 0.2
    """Probability of a Gaussian blur."""
    blur_sigma: Range = (0.5, 1.0)
    """Lowest and highest standard deviation of the blur in voxels, drawn for each axis."""
    blur_modality_probability: float = 0.5
    """Probability of each modality of a sample that is blurred."""
    brightness_probability: float = 0.15
    """Probability of intensities times a factor."""
    brightness_range: Range = (0.75, 1.25)
    """Lowest and highest factor of the brightness."""
    contrast_probability: float = 0.15
    """Probability of distances from the mean times a factor."""
    contrast_range: Range = (0.75, 1.25)
    """Lowest and highest factor of the contrast."""
    low_resolution_probability: float = 0.25
    """Probability of a coarser resolution: down to fewer voxels and up again."""
    low_resolution_range: Range = (0.5, 1.0)
    """Lowest and highest share of the voxels that are left along each axis."""
    low_resolution_modality_probability: float = 0.5
    """Probability of each modality of a sample that is made coarser."""
    inverted_gamma_probability: float = 0.1
    """Probability of a power of the inverted intensities, scaled to [0, 1] for it."""
    gamma_probability: float = 0.3
    """Probability of a power of the intensities, scaled to [0, 1] for it."""
    gamma_range: Range = (0.7, 1.5)
    """Lowest and highest exponent of both powers."""
    shift_probability: float = 0.0
    """Probability of a number added to all intensities of the head, one for each modality: what another scanner, or
    another head's mean, does to a z-score. It is part of the normalisation and costs nothing."""
    shift_range: Range = (-0.3, 0.3)
    """Lowest and highest number of the shift, of intensities with standard deviation 1."""
    factors_per_modality: bool = True
    """Brightness, contrast and gamma: one factor a modality, or one for all."""
    factors_balanced: bool = True
    """Half of the factors below 1, half above, whatever the range (nnU-Net's BGContrast)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_probability") and not 0 <= value <= 1:
                raise InputError(f"{field.name} must lie within 0 and 1, got {value}")
            if isinstance(value, tuple) and not (len(value) == 2 and value[0] <= value[1]):
                raise InputError(f"{field.name} must be (low, high) with low <= high, got {value}")
        for name in ("scale_range", "blur_sigma", "brightness_range", "low_resolution_range", "gamma_range"):
            if getattr(self, name)[0] <= 0:
                raise InputError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if self.low_resolution_range[1] > 1:
            raise InputError(f"low_resolution_range must not exceed 1, got {self.low_resolution_range}")

    def noise_sigma(self, drawn: float) -> float:
        """Standard deviation, in normalised intensities, for a number drawn from `noise_range`."""
        return math.sqrt(drawn) if self.noise_drawn_as == "variance" else drawn


NNUNET = AugmentationConfig()

# Its zoom is cubic and its contrast pivots on zero there; here both share nnU-Net's warp and pivot.
NVIDIA = AugmentationConfig(
    rotation_probability=0.0,
    scale_probability=0.15,
    scale_range=(0.7, 1.0),
    noise_probability=0.15,
    noise_range=(0.0, 0.33),
    noise_drawn_as="sigma",
    blur_probability=0.15,
    blur_sigma=(0.5, 1.5),
    blur_modality_probability=1.0,
    brightness_range=(0.7, 1.3),
    contrast_range=(0.65, 1.5),
    low_resolution_probability=0.0,
    inverted_gamma_probability=0.0,
    gamma_probability=0.0,
    factors_per_modality=False,
    factors_balanced=False,
)

# What a laptop's CPU computes in passing: no resampling, no filters, no powers.
LIGHT = AugmentationConfig(
    rotation_probability=0.0,
    scale_probability=0.0,
    noise_probability=0.1,
    blur_probability=0.0,
    brightness_probability=0.3,
    contrast_probability=0.15,
    low_resolution_probability=0.0,
    inverted_gamma_probability=0.0,
    gamma_probability=0.0,
)

NONE = AugmentationConfig(
    **{field.name: 0.0 for field in fields(AugmentationConfig) if field.name.endswith("_probability")}  # type: ignore[arg-type]
)

AUGMENTATION_PRESETS: dict[str, AugmentationConfig] = {"nnunet": NNUNET, "nvidia": NVIDIA, "light": LIGHT, "none": NONE}
"""nnunet: nnU-Net v2's. nvidia: NVIDIA's nnU-Net's. light: what a laptop's CPU computes in passing. none: none."""
