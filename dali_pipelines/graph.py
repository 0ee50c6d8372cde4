"""The training graph: stored patches or slices in, augmented batches out, on one GPU. On the CPU tests alone run it.

A CPU's batches are computed by delivery_on_cpu.py, which shares `change_intensities`.

M modalities, R regions, D H W voxels z, y, x; slices have no D.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvidia.dali import fn, pipeline_def, types

from dali_pipelines import augment
from dali_pipelines.augmentation import AugmentationConfig

Node = Any

NOISE_BANK = "noise_bank"

# Rank of each small input; the values are PatchPlan.parameters of the same name.
NORMALISE = {"normalise_scale": 1, "normalise_offset": 1}
_MIRROR = {"mirror": 1}
# By the operation whose probability says whether the graph has it.
_OF_OPERATION = {
    "rotation": {"rotate_on": 0, "warp_matrix": 2},
    "scale": {"zoom_on": 0, "zoom_start": 1, "zoom_end": 1},
    "noise": {"noise_on": 0, "noise_sigma": 1, "noise_anchor": 1, "noise_mirror": 1},
    "blur": {"blur_on": 0, "blur_modality": 1, "blur_sigma": 2},
    "brightness": {"brightness_on": 0, "brightness": 1},
    "contrast": {"contrast_on": 0, "contrast": 1},
    "low_resolution": {"low_resolution_on": 0, "low_resolution_modality": 1, "low_resolution_shape": 2},
    "inverted_gamma": {"inverted_gamma_on": 0, "inverted_gamma": 1},
    "gamma": {"gamma_on": 0, "gamma": 1},
}


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """One training graph. `size` is the patch, (D, H, W) or (H, W); `batch_size` that of one rank."""

    augmentation: AugmentationConfig
    size: tuple[int, ...]
    batch_size: int
    modalities: int
    integers: bool  # images are stored as int16, else as float32
    regions: tuple[tuple[int, ...], ...]  # the labels of each
    skull_stripped: bool = True
    device_id: int | None = None  # the GPU's number; None builds without one
    on_gpu: bool = False  # True with device_id None can be serialised, for checking, but not run
    num_threads: int = 1
    float16: bool = False
    channels_last: bool = False

    @property
    def spatial(self) -> str:
        """Names of the voxel axes, as DALI's layouts spell them."""
        return "DHW"[-len(self.size) :]


def build_patch_pipeline(config: GraphConfig) -> Any:
    """A DALI pipeline.

    Inputs: image as stored (M, d, h, w) and label uint8 (1, d, h, w) of whatever box a sample needs; parameter_inputs.
    Outputs: image float (M, D, H, W) ((D, H, W, M) with channels_last) and regions uint8 (R, D, H, W).
    """

    # One run is computed at a time: the loader's own thread runs ahead, and only so far as it has fed.
    @pipeline_def(enable_conditionals=True, prefetch_queue_depth=1)
    def train_on_patches() -> Any:
        given = declare_parameters(parameter_inputs(config.augmentation)) | declare_noise_bank(config)
        image, label = declare_voxels(config)
        if config.skull_stripped:
            # Before any resampling, so that the zeros it fills in are background's own.
            image = normalise(image, given, config)
            image, label = change_geometry(image, label, given, config)
        else:
            # After it: what lies outside the scan's box of voxels that are not 0 is 0 in the scan, and so is what
            # resampling fills in; normalised, that is air and not the mean.
            image, label = change_geometry(augment.as_floats(image), label, given, config)
            image = normalise(image, given, config)
        image = change_intensities(augment, image, given, config)
        return deliver(image, config), augment.regions(label, config.regions)

    graph = train_on_patches(batch_size=config.batch_size, num_threads=config.num_threads, device_id=config.device_id)
    remove_sources()
    return graph


def remove_sources() -> None:
    """Remove the files in the temp folder through which DALI loaded the functions of graphs that are built.

    It does so itself where a process ends by itself, which Ray's workers do not, and never with what was compiled.
    """
    for name, module in [*sys.modules.items()]:
        if name.startswith("__autograph_generated_file") and module.__spec__ is not None:
            for file in filter(None, (module.__spec__.origin, module.__spec__.cached)):
                Path(file).unlink(missing_ok=True)


def parameter_inputs(augmentation: AugmentationConfig) -> dict[str, int]:
    """Names of the small inputs that the graph of this configuration takes, with their ranks."""
    used = NORMALISE | _MIRROR
    for operation, inputs in _OF_OPERATION.items():
        if getattr(augmentation, f"{operation}_probability"):
            used |= inputs
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


def declare_noise_bank(config: GraphConfig) -> dict[str, Node]:
    """The external source of the noise bank by its name, if the graph adds noise."""
    if not config.augmentation.noise_probability:
        return {}
    # On a GPU the bank lies there, once for each sample, and is shared without a copy.
    device, layout = "gpu" if config.on_gpu else "cpu", f"C{config.spatial}"
    bank = fn.external_source(name=NOISE_BANK, device=device, dtype=types.FLOAT, layout=layout, no_copy=True)
    return {NOISE_BANK: bank}


def normalise(image: Node, given: dict[str, Node], config: GraphConfig) -> Node:
    """Stored intensities to the model's."""
    scale, offset = given["normalise_scale"], given["normalise_offset"]
    return augment.normalise(
        image,
        scale,
        offset,
        modalities=config.modalities,
        integers=config.integers,
        skull_stripped=config.skull_stripped,
    )


def change_geometry(image: Node, label: Node, given: dict[str, Node], config: GraphConfig) -> tuple[Node, Node]:
    """Rotation, scale and mirror: one resampling for the samples that need it, else a reversal of axes."""
    size, spatial = config.size, config.spatial
    if config.augmentation.rotation_probability and given["rotate_on"]:
        image = augment.warp(image, given["warp_matrix"], size, spatial, types.INTERP_LINEAR)
        label = augment.warp(label, given["warp_matrix"], size, spatial, types.INTERP_NN)
    elif config.augmentation.scale_probability and given["zoom_on"]:
        image = augment.zoom(image, given["zoom_start"], given["zoom_end"], size, spatial, types.INTERP_LINEAR)
        label = augment.zoom(label, given["zoom_start"], given["zoom_end"], size, spatial, types.INTERP_NN)
    else:
        image = augment.mirror(image, given["mirror"], spatial)
        label = augment.mirror(label, given["mirror"], spatial)
    return image, label


def change_intensities(operations: Any, image: Node, given: dict[str, Node], config: GraphConfig) -> Node:
    """nnU-Net's order: what the scanner adds, what its optics blur, its gain, its resolution, its response curve.

    operations: augment.py, or augment_on_cpu.py with arrays for nodes.
    """
    size, spatial, modalities, chosen = config.size, config.spatial, config.modalities, config.augmentation
    # The left side of each `and` is settled when the graph is built, the right side for each sample.
    if chosen.noise_probability and given["noise_on"]:
        bank, sigma, anchor, axes = (
            given[name] for name in (NOISE_BANK, "noise_sigma", "noise_anchor", "noise_mirror")
        )
        image = operations.noise(image, bank, sigma, anchor, axes, (modalities, *size), spatial)
    if chosen.blur_probability and given["blur_on"]:
        image = operations.blur(image, given["blur_modality"], given["blur_sigma"], spatial, modalities=modalities)
    if chosen.brightness_probability and given["brightness_on"]:
        image = operations.brightness(image, given["brightness"], spatial)
    if chosen.contrast_probability and given["contrast_on"]:
        image = operations.contrast(image, given["contrast"], spatial)
    if chosen.low_resolution_probability and given["low_resolution_on"]:
        modality, shape = given["low_resolution_modality"], given["low_resolution_shape"]
        image = operations.low_resolution(image, modality, shape, size, spatial, modalities=modalities)
    if chosen.inverted_gamma_probability and given["inverted_gamma_on"]:
        image = operations.gamma(image, given["inverted_gamma"], spatial, inverted=True)
    if chosen.gamma_probability and given["gamma_on"]:
        image = operations.gamma(image, given["gamma"], spatial, inverted=False)
    return image


def deliver(image: Node, config: GraphConfig) -> Node:
    """Last: the axes and the type that the trainer asked for. Earlier, float16 is refused by most CPU operators."""
    if config.channels_last:
        axes = list(range(1, len(config.size) + 1))
        image = fn.transpose(image, perm=[*axes, 0], output_layout=f"{config.spatial}C")
    if config.float16:
        image = fn.cast(image, dtype=types.FLOAT16)
    return image
