"""The same samples by NumPy on the CPU and by DALI on the GPU, each augmentation alone, then all of them together.

Labels must be equal, voxel for voxel: they are looked at where no rounding can decide between two (ties.py). Images may
differ by what rounding in another order does: a warp finds its places 1/4000 voxel further at most, and where contrast
is high that is a thousandth. On a CPU, which is compared with itself, nothing may differ.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from benchmarks.gpu_checks.bench import Bench, Finding
from benchmarks.gpu_checks.ties import ROTATION_DEGREES, ZOOM, side_without_borders
from dali_pipelines import AUGMENTATION_PRESETS, AugmentationConfig, Batch, PatchPlan, SamplingConfig
from models.device_setup import MOST_ERROR

IMAGE_TOLERANCE = 1e-2  # of intensities whose standard deviation is 1 over the brain
IMAGE_EXCEPTIONS = 1e-5  # share of the voxels that may be further off: gamma's power is steep at the darkest of them

# An operation, by its probability's name -> the input of the graph that says whether a sample has it.
OPERATIONS = {
    "mirror": "mirror",
    "rotation": "rotate_on",
    "scale": "zoom_on",
    "noise": "noise_on",
    "blur": "blur_on",
    "brightness": "brightness_on",
    "contrast": "contrast_on",
    "low_resolution": "low_resolution_on",
    "inverted_gamma": "inverted_gamma_on",
    "gamma": "gamma_on",
}

WITHOUT_BORDERS = replace(
    AUGMENTATION_PRESETS["none"],
    rotation_degrees=(ROTATION_DEGREES, ROTATION_DEGREES),
    scale_range=(ZOOM, ZOOM),
    blur_modality_probability=0.5,
    low_resolution_modality_probability=0.5,
)


def chosen(operations: Iterable[str], probability: float) -> AugmentationConfig:
    """These operations, each with this probability."""
    return replace(WITHOUT_BORDERS, **{f"{name}_probability": probability for name in operations})  # type: ignore[arg-type]


def check_alone(operation: str) -> Callable[[Bench], Iterable[Finding]]:
    """A check of one operation, which every sample has."""
    return lambda bench: compare_graphs(bench, chosen([operation], 1.0), OPERATIONS[operation])


def check_mixture(bench: Bench) -> Iterable[Finding]:
    """All operations, each in half of the samples."""
    return compare_graphs(bench, chosen(OPERATIONS, 0.5), None)


def compare_graphs(bench: Bench, augmentation: AugmentationConfig, flag: str | None) -> Iterable[Finding]:
    """A row for patches and one for slices. flag: what says that a sample has the operation, if it is a single one."""
    side, batches = side_without_borders(bench.side), 4 if bench.on_gpu else 2
    patches = SamplingConfig(patch_shape=(side,) * 3, global_batch_size=2, patches_per_epoch=2 * batches)
    slices = replace(
        patches, dimensions=2, patch_shape=(side, side), global_batch_size=8, patches_per_epoch=8 * batches
    )
    tolerance, exceptions = (IMAGE_TOLERANCE, IMAGE_EXCEPTIONS) if bench.on_gpu else (0.0, 0.0)
    for name, sampling in (("patches", patches), ("slices", slices)):
        labels, furthest, beyond, changed, samples = 0, 0.0, 0.0, 0, 0
        with (
            bench.open_loader(sampling, augmentation, device="cpu") as on_cpu,
            bench.open_loader(sampling, augmentation) as on_device,
        ):
            for left, right in zip(on_cpu, on_device, strict=True):
                differences = image_differences(left, right)
                labels += int((left.regions != right.regions.cpu()).sum())
                furthest = max(furthest, float(differences.max()))
                beyond = max(beyond, float((differences > tolerance).float().mean()))
                samples += len(left.plans)
                changed += sum(flag is None or has(plan, flag) for plan in left.plans)
                if bench.is_time_up():
                    break
        yield Finding(
            what=name,
            passed=labels == 0 and beyond <= exceptions and changed > 0,
            figures=f"{labels} labels differ; images by {furthest:.2g} at most, by more than {tolerance:g} in "
            f"{beyond:.2g} of the voxels; side {side}, {changed} of {samples} samples have it",
        )


def check_norm(bench: Bench) -> Iterable[Finding]:
    """Whether Triton's kernels of models/fused_norm.py compute what torch does, in float16 beside float64."""
    from models.fused_norm import error_on

    error = error_on(bench.device)
    yield Finding(
        passed=error <= MOST_ERROR,
        figures=f"features and gradients by {error:.2g} of their norm at most, {MOST_ERROR:g} allowed",
    )


def image_differences(left: Batch, right: Batch) -> torch.Tensor:
    """How far each voxel of the images is off; NaN is infinitely far."""
    return torch.nan_to_num((left.image - right.image.cpu()).abs(), nan=float("inf"))


def has(plan: PatchPlan, flag: str) -> bool:
    """Whether the sample has the operation of this flag; of a mirror, along any axis."""
    return bool(plan.parameters[flag].any())
