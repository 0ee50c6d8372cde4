"""The feed: batches from the loader's own thread, what the loader costs alone, and how long training waits for it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import torch

from benchmarks.cost import time_call
from benchmarks.device import wait
from benchmarks.end_to_end import WARM_UP, make_plan, training_config
from benchmarks.gpu_checks.bench import Bench, Finding
from benchmarks.loader import measure_loader
from benchmarks.settings import EndToEndBenchmark, LoaderBenchmark
from dali_pipelines import AUGMENTATION_PRESETS, Batch, SamplingConfig
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.training.run import Run, prepare
from ray_jobs.training.train_loop import train_step

BATCH = 2
STEPS = 60
MOST_WAITING = 0.02  # of the time of a training on a GPU whose cases are decoded


def check_one_batch(bench: Bench) -> Iterable[Finding]:
    """Batches of preset `light` as training gets them: computed by the loader's own thread, which made no context on
    the GPU, with noise from the bank that lies there. Four of them, so that buffers are used again.
    """
    augmentation = replace(AUGMENTATION_PRESETS["light"], noise_probability=1.0)
    sampling = SamplingConfig(patch_shape=(bench.side,) * 3, global_batch_size=BATCH, patches_per_epoch=4 * BATCH)
    batches: list[Batch] = []
    with bench.open_loader(sampling, augmentation) as loader:
        first = time_call(lambda: batches.extend(islice(loader, 1)))
        rest = time_call(lambda: batches.extend(loader))
        wrong = [problem for batch in batches for problem in problems_of(batch, bench.device)]
    yield Finding(
        passed=not wrong,
        figures=", ".join(dict.fromkeys(wrong))
        or f"{len(batches)} batches of {shape_in_words(bench, sampling)} on {bench.device}: the first after "
        f"{1000 * first.wall:.0f} ms, the others {1000 * rest.wall / 3:.0f} ms each",
    )


def problems_of(batch: Batch, device: torch.device) -> Iterator[str]:
    """What is wrong with a batch, in words."""
    for name, tensor in (("image", batch.image), ("regions", batch.regions)):
        if tensor.device != device:
            yield f"{name} lies on {tensor.device}, not on {device}"
    if not bool(torch.isfinite(batch.image).all()):
        yield "image is not finite"
    if float(batch.image.std()) == 0:
        yield "image is the same everywhere"
    if int(batch.regions.max()) > 1:
        yield "regions are no masks"


def measure_waits(bench: Bench) -> Iterable[Finding]:
    """Training as preset brats3d does it, its loader beside it: how long the device had no work while the loop asked
    for a batch.

    Measured by events in the training's stream, one after a step's last kernel and one when the loop has the next
    batch and goes on: the time between the two is what the device waited, for the batch and for the host to hand it
    over. What the device idles within a step, while the host launches kernels, counts as the step's. (step_clock.py)
    """
    told = EndToEndBenchmark(preset="brats3d" if bench.on_gpu else "demo", patch=(bench.full_side,) * 3, batch=BATCH)
    plan = make_plan(bench.cache, bench.cases, training_config(told))
    run = prepare(plan, LocalSession(bench.folder / "waits", bench.device))
    steps = timed_steps(run, bench)
    seconds = sum(sum(step.values()) for step in steps)
    share = sum(step["wait"] for step in steps) / seconds
    yield Finding(
        passed=share < MOST_WAITING if bench.on_gpu else None,  # on a CPU loader and network share the cores
        figures=f"{share:.1%} of the time waited for data in {len(steps)} steps of {BATCH} x {bench.full_side}^3 "
        f"({told.preset}, {run.precision.name}): {1000 * seconds / len(steps):.4g} ms a step, "
        f"{len(steps) * BATCH / seconds:.4g} patches/s",
    )


def timed_steps(run: Run, bench: Bench) -> list[dict[str, float]]:
    """The seconds of each part of the training steps after the warm-up: 60 of them, or what there is time for."""
    run.model.train()
    most = STEPS if bench.on_gpu else 4
    with run.loader:
        for number, batch in enumerate(run.clock.batches(run.loader)):
            if number == WARM_UP + most or (number > WARM_UP and bench.is_time_up()):
                break
            train_step(run, batch)
        wait(bench.device)
        return run.clock.collect(wait=True)[WARM_UP:]


def measure_loader_alone(bench: Bench) -> Iterable[Finding]:
    """What a patch costs from the cache to the trainer with nnU-Net's augmentation and a trainer that does nothing."""
    volumes = SamplingConfig(
        patch_shape=(bench.full_side,) * 3, global_batch_size=BATCH, patches_per_epoch=10_000, seed=1
    )
    slices = replace(
        volumes,
        dimensions=2,
        patch_shape=(192, 160) if bench.on_gpu else (bench.full_side,) * 2,
        global_batch_size=8 * BATCH,
    )
    told = LoaderBenchmark(store=bench.cache.store.uri, batch_size=BATCH)
    for name, sampling in (("patches", volumes), ("slices", slices)):
        patches = (24 if bench.on_gpu else 2) * sampling.global_batch_size
        cost = measure_loader(
            bench.cache, told, sampling, str(bench.device), patches=patches, case_ids=bench.cases
        ).milliseconds()
        yield Finding(
            what=name,
            figures=f"{cost['wall_ms']:g} ms and {cost['cpu_ms']:g} CPU-ms a patch of "
            f"{shape_in_words(bench, sampling)}, one thread that reads and one of DALI's",
        )


def shape_in_words(bench: Bench, sampling: SamplingConfig) -> str:
    """A batch's shape."""
    modalities = bench.cache.store.settings.modalities
    return " x ".join(map(str, (sampling.global_batch_size, len(modalities), *sampling.patch_shape)))
