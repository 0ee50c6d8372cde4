"""The training graph in parts: its configuration, its inputs by name, and the order of the augmentations.

M modalities, R regions, D H W voxels z, y, x.
"""

from dataclasses import dataclass
from typing import Any

from nvidia.dali import fn, types

from dali_pipelines import augment
from dali_pipelines.augmentation import AugmentationConfig

Node = Any

NOISE_BANK = "noise_bank"

# Rank of each small input; the values are PatchPlan.parameters of the same name.
NORMALISE = {"normalise_scale": 1, "normalise_offset": 1}
_ROTATE = {"rotate_on": 0, "warp_matrix": 2}
_ZOOM = {"zoom_on": 0, "zoom_start": 1, "zoom_end": 1}
_MIRROR = {"mirror": 1}
_NOISE = {"noise_on": 0, "noise_sigma": 0, "noise_anchor": 1, "noise_mirror": 1}
_BLUR = {"blur_on": 0, "blur_modality": 1, "blur_sigma": 2}
_BRIGHTNESS = {"brightness_on": 0, "brightness": 1}
_CONTRAST = {"contrast_on": 0, "contrast": 1}
_LOW_RESOLUTION = {"low_resolution_on": 0, "low_resolution_modality": 1, "low_resolution_shape": 2}
_INVERTED_GAMMA = {"inverted_gamma_on": 0, "inverted_gamma": 1}
_GAMMA = {"gamma_on": 0, "gamma": 1}


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """One training graph. `size` is the patch, (D, H, W) or (H, W); `batch_size` that of one rank."""

    augmentation: AugmentationConfig
    size: tuple[int, ...]
    batch_size: int
    modalities: int
    integers: bool  # images are stored as int16, else as float32
    device_id: int | None = None  # the GPU's number; None builds without one
    on_gpu: bool = False  # True with device_id None can be serialised, for checking, but not run
    num_threads: int = 1
    float16: bool = False
    channels_last: bool = False

    @property
    def spatial(self) -> str:
        """Names of the voxel axes, as DALI's layouts spell them."""
        return "DHW"[-len(self.size) :]


def parameter_inputs(augmentation: AugmentationConfig) -> dict[str, int]:
    """Names of the small inputs that the graph of this configuration takes, with their ranks."""
    used = NORMALISE | _MIRROR
    used |= _ROTATE if augmentation.rotation_probability else {}
    used |= _ZOOM if augmentation.scale_probability else {}
    used |= _NOISE if augmentation.noise_probability else {}
    used |= _BLUR if augmentation.blur_probability else {}
    used |= _BRIGHTNESS if augmentation.brightness_probability else {}
    used |= _CONTRAST if augmentation.contrast_probability else {}
    used |= _LOW_RESOLUTION if augmentation.low_resolution_probability else {}
    used |= _INVERTED_GAMMA if augmentation.inverted_gamma_probability else {}
    used |= _GAMMA if augmentation.gamma_probability else {}
    return used


def declare_parameters(inputs: dict[str, int]) -> dict[str, Node]:
    """External sources for the small inputs; they stay on the CPU, where DALI wants arguments and conditions."""
    return {name: fn.external_source(name=name, ndim=ndim, no_copy=True) for name, ndim in inputs.items()}


def declare_voxels(config: GraphConfig) -> tuple[Node, Node]:
    """External sources for image and label, moved to the GPU where the graph runs there."""
    layout, dtype = f"C{config.spatial}", types.INT16 if config.integers else types.FLOAT
    image = fn.external_source(name="image", dtype=dtype, layout=layout, no_copy=True)
    label = fn.external_source(name="label", dtype=types.UINT8, layout=layout, no_copy=True)
    return (image.gpu(), label.gpu()) if config.on_gpu else (image, label)


def normalise(image: Node, given: dict[str, Node], config: GraphConfig) -> Node:
    """Stored intensities to the model's; before any resampling, so that the zeros it fills in are background's own."""
    scale, offset = given["normalise_scale"], given["normalise_offset"]
    return augment.normalise(image, scale, offset, modalities=config.modalities, integers=config.integers)


def declare_noise_bank(config: GraphConfig) -> Node:
    """The fixed Gaussian bank; on a GPU it lies there once and is fed without a copy."""
    device = "gpu" if config.on_gpu else "cpu"
    layout = f"C{config.spatial}"
    return fn.external_source(name=NOISE_BANK, device=device, dtype=types.FLOAT, layout=layout, no_copy=True)


def change_geometry(image: Node, label: Node, given: dict[str, Node], config: GraphConfig) -> tuple[Node, Node]:
    """Rotation, scale and mirror: one resampling for the samples that need it, else a reversal of axes."""
    size, spatial = config.size, config.spatial
    if config.augmentation.rotation_probability and given["rotate_on"]:
        image = augment.warp_image(image, given["warp_matrix"], size, spatial)
        label = augment.warp_label(label, given["warp_matrix"], size, spatial)
    elif config.augmentation.scale_probability and given["zoom_on"]:
        image = augment.zoom_image(image, given["zoom_start"], given["zoom_end"], size, spatial)
        label = augment.zoom_label(label, given["zoom_start"], given["zoom_end"], size, spatial)
    else:
        image = augment.mirror(image, given["mirror"], spatial)
        label = augment.mirror(label, given["mirror"], spatial)
    return image, label


def change_intensities(image: Node, given: dict[str, Node], config: GraphConfig) -> Node:
    """nnU-Net's order: what the scanner adds, what its optics blur, its gain, its resolution, its response curve."""
    size, spatial, modalities, chosen = config.size, config.spatial, config.modalities, config.augmentation
    # The left side of each `and` is settled when the graph is built, the right side for each sample.
    if chosen.noise_probability:
        bank = declare_noise_bank(config)
        if given["noise_on"]:
            sigma, anchor, axes = given["noise_sigma"], given["noise_anchor"], given["noise_mirror"]
            image = augment.noise(image, bank, sigma, anchor, axes, (modalities, *size), spatial)
    if chosen.blur_probability and given["blur_on"]:
        image = augment.blur(image, given["blur_modality"], given["blur_sigma"], spatial, modalities=modalities)
    if chosen.brightness_probability and given["brightness_on"]:
        image = augment.brightness(image, given["brightness"], spatial)
    if chosen.contrast_probability and given["contrast_on"]:
        image = augment.contrast(image, given["contrast"], spatial)
    if chosen.low_resolution_probability and given["low_resolution_on"]:
        modality, shape = given["low_resolution_modality"], given["low_resolution_shape"]
        image = augment.low_resolution(image, modality, shape, size, spatial, modalities=modalities)
    if chosen.inverted_gamma_probability and given["inverted_gamma_on"]:
        image = augment.gamma(image, given["inverted_gamma"], spatial, inverted=True)
    if chosen.gamma_probability and given["gamma_on"]:
        image = augment.gamma(image, given["gamma"], spatial, inverted=False)
    return image


def deliver(image: Node, config: GraphConfig) -> Node:
    """Last: the axes and the type that the trainer asked for. Earlier, float16 is refused by most CPU operators."""
    if config.channels_last:
        axes = list(range(1, len(config.size) + 1))
        image = fn.transpose(image, perm=[*axes, 0], output_layout=f"{config.spatial}C")
    if config.float16:
        image = fn.cast(image, dtype=types.FLOAT16)
    return image
