"""What only a machine with a GPU can show, in one command and without Ray: `python -m benchmarks gpu-check`.

1. Parity: the same samples through the CPU's and the GPU's graph; labels equal, images within tolerance.
2. Training: a small U-Net on the GPU whose loss falls, fed by the loader.
3. Throughput: patches a second of the loader alone and of training, and the share of time spent waiting for data.

Needs the project on the path (an editable install, or PYTHONPATH at its root). Without --store it writes and converts a
synthetic cohort. Exit status 0 when all checks pass, 1 when one fails, 2 when there is no GPU.
B batch, M modalities, R regions, D H W voxels z, y, x.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.device import device_name, wait
from benchmarks.report import report
from benchmarks.settings import GpuCheck
from benchmarks.stores import labelled_cases, open_cohort
from benchmarks.train_step import make_step
from dali_pipelines import AUGMENTATION_PRESETS, AugmentationConfig, Batch, PatchLoader, SamplingConfig
from models import UNET_PRESETS, Execution, build_unet, choose_precision, fuses_optimiser
from storage import DecodedCaseCache, InputError

# A place that falls on the border of two voxels may round either way on another processor.
LABEL_TOLERANCE = 1e-5  # share of the voxels of resampled samples; of all others none may differ
IMAGE_TOLERANCE = 1e-2  # standard deviations of the brain's intensities
IMAGE_EXCEPTIONS = 1e-4  # share of voxels beyond it: the coarse grid's nearest neighbour may round either way, too

HALF = AugmentationConfig(
    **{name: 0.5 for name in vars(AUGMENTATION_PRESETS["nnunet"]) if name.endswith("_probability")}  # type: ignore[arg-type]
)


def run(config: GpuCheck) -> bool:
    """All checks; prints a table and returns whether every one passed. Raises InputError where there is no GPU."""
    if config.device != "cpu" and not torch.cuda.is_available():
        raise InputError("wanted a GPU, torch sees none; run this on a machine with one, or try it with --device cpu")
    with tempfile.TemporaryDirectory() as folder:
        cache = open_cohort(config.store, Path(folder))
        rows = [*check_parity(cache, config), check_training(cache, config), *measure_throughput(cache, config)]
    title = f"GPU check on {device_name(torch.device(config.device))}, torch {torch.__version__}"
    report(title, rows, config.json)
    return all(row["passed"] != "NO" for row in rows)


def open_loader(
    cache: DecodedCaseCache,
    device: str,
    sampling: SamplingConfig,
    augmentation: AugmentationConfig,
    dtype: Literal["float32", "float16"] = "float32",
) -> PatchLoader:
    """A loader over all labelled cases."""
    return PatchLoader(
        cache,
        labelled_cases(cache.store),
        sampling=sampling,
        augmentation=augmentation,
        device=device,
        dtype=dtype,
        channels_last=True,
    )


def check_parity(cache: DecodedCaseCache, config: GpuCheck) -> Iterator[dict[str, Any]]:
    """The same samples by both graphs, patches and slices, every operation in half of the samples."""
    patches = SamplingConfig(patch_shape=(config.side,) * 3, global_batch_size=4, patches_per_epoch=32)
    slices = replace(patches, dimensions=2, patch_shape=(config.side,) * 2, global_batch_size=16, patches_per_epoch=128)
    for name, sampling in (("patches", patches), ("slices", slices)):
        with (
            open_loader(cache, "cpu", sampling, HALF) as on_cpu,
            open_loader(cache, config.device, sampling, HALF) as on_gpu,
        ):
            compared = [compare(*pair) for pair in zip(on_cpu, on_gpu, strict=True)]
        unlike = [max(values) for values in zip(*compared, strict=True)]
        passed = unlike[0] == 0 and unlike[1] <= LABEL_TOLERANCE and unlike[2] <= IMAGE_EXCEPTIONS
        yield {
            "check": f"parity of {name}",
            "passed": "yes" if passed else "NO",
            "figures": f"labels differ in {unlike[0]:.1e} of unresampled and {unlike[1]:.1e} of resampled voxels, "
            f"images by more than {IMAGE_TOLERANCE:g} in {unlike[2]:.1e}",
        }


def compare(left: Batch, right: Batch) -> tuple[float, float, float]:
    """Shares of voxels that differ: labels of samples not resampled, of those resampled, and images."""
    resampled = torch.tensor([bool(p.parameters["rotate_on"] or p.parameters["zoom_on"]) for p in left.plans])
    differ = (left.regions != right.regions.cpu()).flatten(1).float().mean(dim=1)
    beyond = ((left.image - right.image.cpu()).abs() > IMAGE_TOLERANCE).float().mean()
    plain, warped = (differ[chosen].max().item() if chosen.any() else 0.0 for chosen in (~resampled, resampled))
    return plain, warped, beyond.item()


def check_training(cache: DecodedCaseCache, config: GpuCheck) -> dict[str, Any]:
    """A tiny U-Net learns: the mean loss of the last tenth is well below that of the first."""
    sampling = SamplingConfig(patch_shape=(config.side,) * 3, global_batch_size=2, patches_per_epoch=2 * config.steps)
    step, precision = open_training("tiny", config.device)
    with open_loader(cache, config.device, sampling, AUGMENTATION_PRESETS["light"]) as loader:
        losses = torch.tensor([step(batch) for batch in loader])
    tenth = max(1, config.steps // 10)
    first, last = losses[:tenth].mean().item(), losses[-tenth:].mean().item()
    return {
        "check": f"training, {precision}",
        "passed": "yes" if last < 0.8 * first else "NO",
        "figures": f"loss {first:.3f} at first, {last:.3f} after {config.steps} steps",
    }


def open_training(preset: str, device: str) -> tuple[Callable[[Batch], float], str]:
    """One optimiser step of a U-Net: batch -> loss; and the precision's name."""
    torch.manual_seed(0)
    place = torch.device(device)
    precision = choose_precision(place)
    network = build_unet(UNET_PRESETS[preset], Execution(channels_last=True)).to(place)
    step = make_step(
        network, torch.optim.AdamW(network.parameters(), lr=3e-3, fused=fuses_optimiser(place)), precision, place
    )
    return lambda batch: step(batch.image, batch.regions), precision.name


def measure_throughput(cache: DecodedCaseCache, config: GpuCheck) -> Iterator[dict[str, Any]]:
    """Patches a second at full size: the loader alone, and nnU-Net's network fed by it."""
    side, preset, batches = (128, "nnunet", 40) if config.device != "cpu" else (config.side, "tiny", 4)
    dtype: Literal["float32", "float16"] = "float16" if config.device != "cpu" else "float32"
    for batch_size in (2, 4):
        sampling = SamplingConfig(
            patch_shape=(side,) * 3, global_batch_size=batch_size, patches_per_epoch=batch_size * (batches + 4)
        )
        for name, step in (("loader alone", wait_for), ("training", open_training(preset, config.device)[0])):
            with open_loader(cache, config.device, sampling, AUGMENTATION_PRESETS["nnunet"], dtype) as loader:
                seconds, waited = time_steps(loader, step, config.device)
            rate = batches * batch_size / seconds
            figures = f"{rate:.1f} patches/s of {side}^3, batch {batch_size}, {100 * waited / seconds:.0f} % waiting"
            yield {"check": f"{name}, batch {batch_size}", "passed": "-", "figures": figures}


def wait_for(batch: Batch) -> torch.Tensor:
    """Use nothing of the batch: what is timed is the loader."""
    return batch.regions


def time_steps(loader: PatchLoader, step: Callable[[Batch], object], device: str) -> tuple[float, float]:
    """Seconds for all steps after the first four, and seconds of them spent waiting for batches."""
    place, started, waited = torch.device(device), 0.0, 0.0
    for number, batch in enumerate(loader):
        if number == 4:
            wait(place)
            started, waited = time.perf_counter(), loader.wait_seconds
        step(batch)
    wait(place)
    return time.perf_counter() - started, loader.wait_seconds - waited
