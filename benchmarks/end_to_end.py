"""Does the loader feed the network? What each gives alone, what both give together, and the share of time that waits.

`python -m benchmarks end-to-end --preset brats3d --store S` times the training loop's own parts, without Ray.
`--sleeping-step 1.0 1.5` tests the feed where loader and network would share the cores: see feed.py.
"""

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from benchmarks.device import device_name, find_device
from benchmarks.feed import feed_rows
from benchmarks.report import report
from benchmarks.settings import EndToEndBenchmark
from benchmarks.stores import labelled_cases, open_cohort
from dali_pipelines import Batch
from models import StepResult
from models.device_setup import settle_execution
from models.unet import channels_last_format
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.input_check import fit_to_store
from ray_jobs.settings.presets import preset
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import Run, prepare
from ray_jobs.training.train_loop import train_step
from ray_jobs.watching.step_clock import DeviceMark, HostMark, Mark
from storage import DecodedCaseCache, Splits

WARM_UP = 3
STEPS_WITHOUT_END = 1_000_000


def run(config: EndToEndBenchmark) -> None:
    """Time the stages of training, or the feed of a step that sleeps."""
    device, train = find_device(config.device), training_config(config)
    sides = "x".join(str(side) for side in train.sampling.patch_shape)
    what = f"{config.preset}, {train.sampling.global_batch_size} x {sides}"
    with tempfile.TemporaryDirectory() as scratch:
        cache = open_cohort(config.store, Path(scratch))
        plan = make_plan(cache, labelled_cases(cache.store), train)
        session = LocalSession(Path(scratch) / "run", device)
        if config.sleeping_step:
            depths = config.ready_batches or (train.ready_batches,)
            rows = feed_rows(plan, session, config.sleeping_step, depths, steps=config.steps)
            report(f"feed of a sleeping step, {what}, {device_name(device)}", rows, config.json)
        else:
            prepared = prepare(plan, session)
            rows = stage_rows(prepared, device, steps=config.steps)
            title = f"end to end, {what}, {device_name(device)}, {prepared.precision.name}"
            report(title, rows, config.json)


def training_config(config: EndToEndBenchmark) -> TrainConfig:
    """The preset's configuration with what the benchmark changes."""
    base = preset(config.preset)
    batch = config.batch or base.sampling.global_batch_size
    sampling = replace(
        base.sampling,
        patch_shape=config.patch or base.sampling.patch_shape,
        global_batch_size=batch,
        patches_per_epoch=STEPS_WITHOUT_END * batch,
    )
    return replace(base, sampling=sampling, precision=config.precision)


def make_plan(cache: DecodedCaseCache, case_ids: tuple[str, ...], train: TrainConfig) -> TrainPlan:
    """Of the cache's cases these train, and none is scored."""
    splits = Splits(train=case_ids, validation=(), test=())
    config = fit_to_store(train, cache.store)
    return TrainPlan(config=config, store=cache.store.uri, splits=splits, cache=cache.folder)


def stage_rows(run: Run, device: torch.device, *, steps: int) -> list[dict[str, Any]]:
    """One row a stage. The step comes first: once the loader runs, its threads fill their queues beside it."""
    run.model.train()
    patches = run.loader.sampling.global_batch_size
    batch = random_batch(run, device)
    rows = [time_steps("step on synthetic data", map(train_step, repeat(run), repeat(batch)), device, steps, patches)]
    with run.loader as loader:
        rows.append(time_steps("loader alone", iter(loader), device, steps, patches))
        rows.append(time_steps("both together", train_on_batches(run), device, steps, patches))
        # The clock has not closed the last step, which nobody asked on from.
        parts = run.clock.collect(wait=True)[WARM_UP:]
    rows[-1]["wait share"] = f"{sum(step['wait'] for step in parts) / sum(sum(step.values()) for step in parts):.1%}"
    return rows


def train_on_batches(run: Run) -> Iterator[StepResult]:
    """The training loop's steps, as its clock sees them."""
    for batch in run.clock.batches(run.loader):
        yield train_step(run, batch)


def random_batch(run: Run, device: torch.device) -> Batch:
    """Voxels of the loader's shapes, types and layout."""
    config = run.plan.config
    shape = config.sampling.global_batch_size, config.model.modalities, *config.sampling.patch_shape
    image = torch.randn(shape, device=device, dtype=torch.float16 if run.precision.use_scaler else torch.float32)
    if settle_execution(config.execution, device, run.precision, config.model).channels_last:
        image = image.contiguous(memory_format=channels_last_format(config.sampling.dimensions))
    regions = torch.rand(shape[0], config.model.regions, *shape[2:], device=device) < 0.1
    return Batch(image=image, regions=regions.to(torch.uint8), plans=())


def time_steps(
    stage: str, work: Iterable[object], device: torch.device, steps: int, patches: int
) -> dict[str, str | float]:
    """The cost of a step of `work`, by CUDA events on a GPU and else by the host's clock, after a warm-up."""
    remaining = iter(work)
    for _ in range(WARM_UP):
        next(remaining)
    start, cpu = mark_time(device), time.process_time()
    for _ in range(steps):
        next(remaining)
    end = mark_time(device)
    end.wait()
    seconds, cpu = start.seconds_until(end) / steps, (time.process_time() - cpu) / steps
    return {
        "stage": stage,
        "ms a step": 1000 * seconds,
        "CPU ms a step": 1000 * cpu,
        "patches/s": patches / seconds,
        "wait share": "",
    }


def mark_time(device: torch.device) -> Mark:
    """A point in the device's time."""
    return DeviceMark() if device.type == "cuda" else HostMark()
