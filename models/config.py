"""What a network, its loss and its arithmetic are told, and U-Nets by name. Imports no PyTorch: flags parse at once.

Letters in names: B batch, M modality, R region, C features, D H W voxels z y x (2-D networks have H W only).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from models.region_forest import RegionLabels, count_labels, number_labels

PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]
"""What arithmetic is asked for; auto is what the device is fastest in (see `choose_precision`)."""
CpuKind = Literal["amx", "avx512_bf16", "float32"]
"""What a CPU multiplies 16-bit numbers in: tiles, vector registers, or nothing, so that they are converted first."""
OverlapRule = Literal["inner", "outer"]
"""How masks of regions are made to fit together; see models/region_rules.py."""
Objective = Literal["iou", "dice"]
"""What thresholds and checkpoints are chosen by: a score that counts of voxels give exactly."""


@dataclass(frozen=True, kw_only=True)
class ImportedConfig:
    """A network of other people's, by the name it is imported by. None: a U-Net."""

    network: str | None = None
    """Another network than a U-Net, as module:name of the class that is it or of a function that returns it, such as
    monai.networks.nets:SegResNet; docs/models.md says what it must answer. Its weights are its own, by their names."""
    arguments: tuple[str, ...] = ()
    """What it is built with, as NAME=VALUE with values as Python writes them: init_filters=16 blocks_down=1,2,2,4.
    in_channels, out_channels and spatial_dims come by themselves; under other names say {scans}, {regions} and
    {dimensions}: num_classes={regions}."""

    @property
    def distribution(self) -> str | None:
        """What the network is installed with, such as "monai 1.6.1"; None for a U-Net or a module of one's own."""
        from models.import_path import find_distribution  # its libraries are of use to imported networks alone

        return None if self.network is None else find_distribution(self.network)


@dataclass(frozen=True, kw_only=True)
class UNetConfig(ImportedConfig):
    """What the network is. Saved with every checkpoint; how it is run (memory layout, compilation) is `Execution`.

    Of an imported network dimensions, head and its arguments say all, the others nothing.
    Raises ValueError on combinations that describe no network.
    """

    dimensions: Literal[2, 3] = 3
    """3: image BMDHW; 2: image BMHW."""
    modalities: int = 4
    """Scans of a case: the network's input. A run takes as many as its store has."""
    regions: int = 3
    """The network's outputs. A run takes as many as the task of its store has."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    """Features of each level, finest first; every level halves the sides."""
    encoder_blocks: tuple[int, ...] | None = None
    """Blocks in each encoder level; None: two convolutions, or one residual block, everywhere."""
    decoder_blocks: int = 2
    """Convolutions in each decoder level."""
    block: Literal["plain", "residual", "pre_norm"] = "plain"
    """plain: convolution, normalisation, leaky ReLU (nnU-Net). residual: two of those around a skip, plain in the
    decoder (nnU-Net's residual encoder). pre_norm: normalisation, convolution, ReLU (pytorch-3dunet's "gcr")."""
    norm_groups: int | None = None
    """Groups of the group normalisation; None: one per feature, which is instance normalisation."""
    down: Literal["strided", "max_pool"] = "strided"
    """strided: a level's first convolution halves the sides (nnU-Net). max_pool: a pooling before it does."""
    up: Literal["transposed", "nearest"] = "transposed"
    """transposed: a transposed convolution doubles the sides (nnU-Net). nearest: each voxel is repeated."""
    stem_stride: Literal[1, 2] = 1
    """2: the first convolution halves the sides, and each output's transposed convolution doubles them again. A patch
    then costs an eighth (3-D) or a quarter (2-D): more context is seen for the same work, less of the finest detail."""
    deep_supervision: int = 0
    """Extra outputs in training, each at half the sides of the one before."""
    head: Literal["regions", "labels"] = "regions"
    """regions: each output is one region's logit. labels: the outputs are log-odds of mutually exclusive labels
    against the background, for cross-entropy; outside training they are turned into region logits."""
    region_labels: RegionLabels | None = None
    """For head="labels": which of its labels, from 1 on, each region holds (models.number_labels gives them). None:
    each region lies within the one before, and there are as many labels as regions. A run takes its task's."""

    def __post_init__(self) -> None:
        if self.arguments and self.network is None:
            raise ValueError(f"UNetConfig.arguments: got {self.arguments}, and no network that takes them")
        if self.dimensions not in (2, 3):
            raise ValueError(f"UNetConfig.dimensions: wanted 2 or 3, got {self.dimensions}")
        if self.region_labels is not None:
            self._check_labels(self.region_labels)
        if self.network is None:
            self._check_u_net()

    def _check_u_net(self) -> None:
        levels = len(self.widths)
        if levels < 2 or min(self.widths) < 1:
            raise ValueError(f"UNetConfig.widths: wanted two or more positive widths, got {self.widths}")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"UNetConfig.stem_stride: wanted 1 or 2, got {self.stem_stride}")
        if self.encoder_blocks is not None and len(self.encoder_blocks) != levels:
            raise ValueError(
                f"UNetConfig.encoder_blocks: wanted {levels} numbers, one for each width, got {self.encoder_blocks}"
            )
        if not 0 <= self.deep_supervision <= levels - 2:
            raise ValueError(
                f"UNetConfig.deep_supervision: {levels} levels allow 0 to {levels - 2} extra outputs, "
                f"got {self.deep_supervision}"
            )
        if self.up == "transposed" and self.down == "max_pool":
            raise ValueError("UNetConfig: transposed convolutions need down='strided'; max_pool goes with up='nearest'")

    def _check_labels(self, region_labels: RegionLabels) -> None:
        wanted = number_labels(region_labels)
        if self.head != "labels" or len(region_labels) != self.regions or wanted != region_labels:
            numbered = "None, as these regions nest" if wanted is None else wanted
            raise ValueError(
                f"UNetConfig.region_labels: wanted labels of {self.regions} regions for head='labels', as "
                f"models.number_labels gives them ({numbered}), got {region_labels} for head={self.head!r}"
            )

    @property
    def outputs(self) -> int:
        """Features that the head gives for each voxel: a logit for each region, or for each label."""
        return self.regions if self.region_labels is None else count_labels(self.region_labels)

    @property
    def side_multiple(self) -> int:
        """By what every side of a patch must divide; 1 where the decoder fits any side.

        Nobody knows that of an imported network: what halves sides five times at most takes multiples of 32.
        """
        if self.network is not None:
            return IMPORTED_MULTIPLE
        fits_any = self.up == "nearest" and self.down == "max_pool"
        return self.stem_stride if fits_any else self.smallest_side

    @property
    def smallest_side(self) -> int:
        """The shortest side that leaves one voxel on the coarsest level."""
        if self.network is not None:
            return IMPORTED_MULTIPLE
        return self.stem_stride * 2 ** (len(self.widths) - 1)

    def round_up_sides(self, sides: Sequence[int]) -> tuple[int, ...]:
        """The smallest sides, none below `sides`, that a padded image must have to suit the depth."""
        multiple = self.side_multiple
        return tuple(max(-(-side // multiple) * multiple, self.smallest_side) for side in sides)

    def check_sides(self, sides: Sequence[int]) -> None:
        """Raise ValueError, naming the nearest sizes that do, unless a patch of `sides` suits the depth.

        An imported network is asked itself (`check_network`).
        """
        if len(sides) != self.dimensions:
            raise ValueError(f"a {self.dimensions}-D U-Net wants {self.dimensions} sides, got {tuple(sides)}")
        if self.network is not None:
            return
        smallest, multiple = self.smallest_side, self.side_multiple
        fitting: list[str] = []
        for side in sides:
            if side < smallest:
                fitting.append(str(smallest))
            elif side % multiple:
                below = side // multiple * multiple
                fitting.append(f"{below} or {below + multiple}")
            else:
                fitting.append(str(side))
        if any(text != str(side) for text, side in zip(fitting, sides, strict=True)):
            rule = f"multiples of {multiple}" if multiple > 1 else f"{smallest} or more"
            raise ValueError(
                f"patch sides {tuple(sides)} don't suit a U-Net of {len(self.widths)} levels, which wants {rule}: "
                f"take {' x '.join(fitting)}, or pad the image"
            )
        if self.norm_groups is None and max(sides) < 2 * smallest:
            raise ValueError(
                f"patch sides {tuple(sides)} leave one voxel on the coarsest of {len(self.widths)} levels, which "
                f"instance normalisation turns into 0: take {2 * smallest} along one axis at least, or pad the image"
            )

    def takes(self, sides: Sequence[int]) -> bool:
        """Whether a patch of `sides` suits the depth."""
        try:
            self.check_sides(sides)
        except ValueError:
            return False
        return True


IMPORTED_FIELDS = ("network", "arguments", "dimensions", "modalities", "regions", "head", "region_labels")
"""The fields of UNetConfig that say something of an imported network."""
IMPORTED_MULTIPLE = 32  # of the sides that whole volumes are padded to


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a network is run; none of it changes weights, names or (but for rounding) results.

    What is left open is decided in models/device_setup.py.
    """

    channels_last: bool | None = None
    """Features innermost in memory (channels_last, channels_last_3d). Default: yes on GPUs, on CPUs what was faster."""
    compile: bool = False
    """torch.compile, in place, so that the state_dict keeps its plain names. Needs a C++ compiler (CPU) or Triton; on a
    CPU without one the run goes on without."""
    activation_checkpointing: bool = False
    """Recompute each level in the backward pass instead of keeping its activations."""


UNET_PRESETS: dict[str, UNetConfig] = {
    # nnU-Net's plain network for a 128³ patch (Isensee et al. 2021). Its fifth output has weight 0, so it's left out.
    "nnunet": UNetConfig(widths=(32, 64, 128, 256, 320, 320), deep_supervision=3),
    "nnunet2d": UNetConfig(dimensions=2, widths=(32, 64, 128, 256, 512, 512), deep_supervision=3),
    # nnU-Net's residual encoder (Isensee et al. 2024, "nnU-Net Revisited"), sizes M to L by patch.
    "resenc": UNetConfig(
        widths=(32, 64, 128, 256, 320, 320),
        block="residual",
        encoder_blocks=(1, 3, 4, 6, 6, 6),
        decoder_blocks=1,
        deep_supervision=3,
    ),
    "tiny": UNetConfig(widths=(8, 16, 32, 64), deep_supervision=1),
    # For CPUs and large patches: nothing is computed at the image's own resolution but the logits.
    "strided": UNetConfig(widths=(24, 48, 96, 160), stem_stride=2, deep_supervision=2),
    "tiny2d": UNetConfig(dimensions=2, widths=(16, 32, 64, 128), deep_supervision=1),
    # pytorch-3dunet's UNet3D(4, 3, f_maps=18, num_groups=9) and UNet2D, as cs231n-3d-segmentation trained them.
    "unet3d": UNetConfig(widths=(18, 36, 72, 144), block="pre_norm", norm_groups=9, down="max_pool", up="nearest"),
    "unet2d": UNetConfig(
        dimensions=2, widths=(18, 36, 72, 144), block="pre_norm", norm_groups=9, down="max_pool", up="nearest"
    ),
}
"""Networks by name, for four modalities and three regions."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """loss = dice_weight * (1 - Dice) + voxel_weight * voxel term, summed over the outputs by their weights.

    Raises ValueError on combinations that describe no loss.
    """

    dice: Literal["batch", "sample", "none"] = "batch"
    """batch: one Dice a region over the voxels of all workers. sample: mean over samples. none: no Dice."""
    voxel: Literal["bce", "ce", "focal", "none"] = "bce"
    """bce: binary cross-entropy per region. focal: the same, times (1 - p)^gamma (Lin et al. 2017). ce: cross-entropy
    over labels that exclude each other; wants a network with head="labels". none: Dice alone."""
    dice_weight: float = 1.0
    """Of the Dice term in the sum."""
    voxel_weight: float = 1.0
    """Of the voxel term in the sum."""
    focal_gamma: float = 2.0
    """Exponent of the focal term: the higher, the less do voxels count that are right already."""
    smooth: float = 1e-5
    """Added to both parts of the Dice fraction; above 0, a region absent from truth and prediction scores 1."""
    squared: bool = False
    """Squares in the Dice denominator (V-Net)."""
    output_weights: tuple[float, ...] | None = None
    """Of the outputs, finest first; None: 1, 1/2, 1/4 … divided by their sum, as nnU-Net."""
    function: str | None = None
    """Another loss than Dice and voxel term, as module:name, such as monai.losses:DiceFocalLoss: a class whose objects,
    or a function which, takes float32 logits and regions of 0 and 1 (B, R, …) and returns a number. Of several workers
    it is the mean of what each computes."""
    arguments: tuple[str, ...] = ()
    """NAME=VALUE for that class or function, with values as Python writes them: sigmoid=True lambda_focal=0.5."""

    def __post_init__(self) -> None:
        if self.arguments and self.function is None:
            raise ValueError(f"LossConfig.arguments: got {self.arguments}, and no function that takes them")
        if self.dice == "none" and self.voxel == "none":
            raise ValueError("LossConfig: dice='none' and voxel='none' leave nothing to train on")
        if self.smooth < 0 or self.focal_gamma < 0:
            raise ValueError(f"LossConfig: smooth and focal_gamma can't be negative, got {self}")

    @property
    def head(self) -> Literal["regions", "labels"]:
        """The UNetConfig.head that this loss trains."""
        return "labels" if self.voxel == "ce" and self.function is None else "regions"


FUNCTION_FIELDS = ("function", "arguments", "output_weights")
"""The fields of LossConfig that say something of an imported loss."""

PYTORCH3DUNET_LOSS = LossConfig(dice="batch", voxel="bce", smooth=0.0, squared=True)
"""pytorch-3dunet's BCEDiceLoss, which cs231n-3d-segmentation trained with."""
