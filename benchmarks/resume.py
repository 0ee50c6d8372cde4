"""What a killed run loses: `kill -9` in mid-epoch, then the same again, beside a run left alone.

The runs are processes without Ray that note each step as it is done. `python -m benchmarks resume`
"""

import multiprocessing
import tempfile
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.report import report
from benchmarks.settings import ResumeBenchmark
from benchmarks.stores import make_synthetic_store
from dali_pipelines import Batch
from models import StepResult
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.groups import CheckpointConfig
from ray_jobs.settings.presets import preset
from ray_jobs.training import train_loop
from ray_jobs.training.run import Run, TrainPlan
from storage import InputError, assign_splits, open_store

EPOCHS, STEPS = 2, 40  # steps an epoch
KILL_AT = 33
SECONDS_BETWEEN_LOOKS = 0.02


def run(config: ResumeBenchmark) -> None:
    """Train once undisturbed, then once for each distance of checkpoints with a kill in between."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = make_synthetic_store(folder).uri
        finish(start(store, folder / "alone", config.every_steps[0]))
        rows = [kill_and_resume(store, folder / "alone", every) for every in config.every_steps]
    report(f"kill -9 in mid-epoch, {EPOCHS} epochs of {STEPS} steps", rows, config.json)


def kill_and_resume(store: str, alone: Path, every: int) -> dict[str, Any]:
    """Return the row of a run with a checkpoint every so many steps."""
    killed = alone.with_name(f"killed-{every}")
    process = start(store, killed, every)
    while not any(step >= KILL_AT for steps in read_starts(killed) for step, _ in steps):
        if not process.is_alive():
            raise InputError(f"the run ended before step {KILL_AT}, with status {process.exitcode}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    process.kill()
    process.join()
    finish(start(store, killed, every))
    first, second = read_starts(killed)
    (undisturbed,) = read_starts(alone)
    wanted = dict(undisturbed)
    times = Counter(step for step, _ in (*first, *second))
    return {
        "checkpoint every": f"{every} steps",
        "killed after step": first[-1][0],
        "goes on at step": second[0][0],
        "steps done twice": sum(count - 1 for count in times.values()),
        "steps left out": len(wanted.keys() - times.keys()),
        "losses that differ": sum(loss != wanted[step] for step, loss in (*first, *second)),
        "final weights": "equal" if final_weights(killed) == final_weights(alone) else "differ",
    }


def start(store: str, run_folder: Path, every: int) -> SpawnProcess:
    """Start the run in that folder, or go on with it."""
    process = multiprocessing.get_context("spawn").Process(target=train, args=(store, run_folder, every))
    process.start()
    return process


def finish(process: SpawnProcess) -> None:
    """Wait for the end. Raises InputError where it is a bad one."""
    process.join()
    if process.exitcode != 0:
        raise InputError(f"the run ended with status {process.exitcode}")


def train(store: str, run_folder: Path, every: int) -> None:
    """Train the demo's network on small patches, with a checkpoint every so many steps."""
    demo = preset("demo")
    config = replace(
        demo,
        epochs=EPOCHS,
        sampling=replace(demo.sampling, patch_shape=(32, 32, 32), patches_per_epoch=4 * STEPS),
        validation=replace(demo.validation, every=EPOCHS),
        checkpoints=CheckpointConfig(every_steps=every, every_minutes=None),
    )
    splits = assign_splits(open_store(store).infos())
    plan = TrainPlan(config=config, store=store, splits=splits, cache=run_folder.with_name("cache"))
    with steps_file(run_folder).open("a") as steps:
        steps.write("start\n")
        note_steps(steps)
        train_loop.train(plan, LocalSession(run_folder, torch.device("cpu")))


def note_steps(file: TextIO) -> None:
    """From now on the training loop writes `step loss` for each step, at once."""
    take = train_loop.train_step

    def take_and_note(run: Run, batch: Batch) -> StepResult:
        result = take(run, batch)
        file.write(f"{run.loader.epoch * STEPS + run.loader.step} {float(result.loss)!r}\n")
        file.flush()
        return result

    train_loop.train_step = take_and_note


def steps_file(run_folder: Path) -> Path:
    """Where a run notes its steps, beside its folder."""
    return run_folder.with_name(f"{run_folder.name}.steps")


def read_starts(run_folder: Path) -> list[list[tuple[int, float]]]:
    """Return step and loss, as done, of each start of a run; a line that is still being written is left out."""
    starts: list[list[tuple[int, float]]] = []
    file = steps_file(run_folder)
    for line in file.read_text().splitlines(keepends=True) if file.exists() else ():
        if line == "start\n":
            starts.append([])
        elif line.endswith("\n"):
            step, loss = line.split()
            starts[-1].append((int(step), float(loss)))
    return starts


def final_weights(run_folder: Path) -> bytes:
    """Return the final weights, as the file has them."""
    store = CheckpointStore(str(run_folder))
    newest = store.newest()
    assert newest is not None, f"{run_folder} has a checkpoint"
    return store.open(newest).read("model.safetensors")
