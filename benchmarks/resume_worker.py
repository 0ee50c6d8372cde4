"""A training run in one process, without Ray, that notes each step as it is done: `resume.py` kills it."""

import dataclasses
import sys
from pathlib import Path
from typing import TextIO

import torch

from dali_pipelines import Batch
from models import StepResult
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.groups import CheckpointConfig
from ray_jobs.settings.presets import preset
from ray_jobs.training import train_loop
from ray_jobs.training.run import Run, TrainPlan
from storage import assign_splits, open_store

EPOCHS, STEPS = 2, 40  # steps an epoch


def note_steps(log: TextIO) -> None:
    """From now on the training loop writes `step loss` for each step, at once."""
    take = train_loop.train_step

    def take_and_note(run: Run, batch: Batch) -> StepResult:
        result = take(run, batch)
        log.write(f"{run.loader.epoch * STEPS + run.loader.step} {float(result.loss)!r}\n")
        log.flush()
        return result

    train_loop.train_step = take_and_note


def main(store: str, run: str, log: str, every_steps: str) -> None:
    """Train the demo's network on small patches, with a checkpoint every so many steps."""
    demo = preset("demo")
    config = dataclasses.replace(
        demo,
        epochs=EPOCHS,
        sampling=dataclasses.replace(demo.sampling, patch_shape=(32, 32, 32), patches_per_epoch=4 * STEPS),
        validation=dataclasses.replace(demo.validation, every=EPOCHS),
        checkpoints=CheckpointConfig(every_steps=int(every_steps), every_minutes=None),
    )
    splits = assign_splits(open_store(store).infos())
    plan = TrainPlan(config=config, store=store, splits=splits, cache=Path(run).parent / "cache")
    with Path(log).open("a") as lines:
        lines.write("start\n")
        note_steps(lines)
        train_loop.train(plan, LocalSession(Path(run), torch.device("cpu")))


if __name__ == "__main__":
    main(*sys.argv[1:])
