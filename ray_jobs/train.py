"""Train a U-Net on BraTS cases: `python ray_jobs/train.py --help`."""

import dataclasses
import datetime
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ray_jobs.cohort import cache_folder, check_input, find_or_make_store
from ray_jobs.command import parse_training
from ray_jobs.config import TrainConfig, default_run_name, run_identity
from ray_jobs.console import open_console
from ray_jobs.exit_status import run_command
from ray_jobs.fit import fit
from ray_jobs.gentle_stop import Stop
from ray_jobs.progress import TrainingProgress
from ray_jobs.provenance import git_commit
from ray_jobs.ray_start import choose_workers, ray_running, refuse_hidden_folder
from ray_jobs.run import TrainPlan
from ray_jobs.run_folder import RunFolder
from ray_jobs.summary import print_summary
from storage import InputError, split_cohort


def main(arguments: Sequence[str]) -> int:
    """Run the job the command line describes; return the exit status."""
    config = parse_training(arguments)
    check_input(config)
    console = open_console()
    stop = Stop()
    with ray_running():
        summary = train_run(config, console, stop)
    if "stopped" in summary:
        console.print(f"stopped {summary['stopped']}; the same command goes on from there", soft_wrap=True)
        return stop.exit_status
    print_summary(summary, console)
    return 0


def train_run(config: TrainConfig, console: Console, stop: Stop) -> dict[str, Any]:
    """Do the whole job and return what summary.json says. A finished run of the same name returns at once."""
    workers, use_gpu = choose_workers(config.workers, gpu=config.gpu)
    least = config.min_workers or workers
    check_world_sizes(config, least, workers)
    store = find_or_make_store(config, console)
    splits = split_cohort(store, config.splits)
    name = config.name or default_run_name(config, store.digest)
    folder = RunFolder(config.runs, name)
    refuse_hidden_folder(store.uri, "store")
    refuse_hidden_folder(folder.uri, "run folder")
    finished = folder.claim(run_identity(config, store.digest))
    if finished is not None:
        console.print(f"run {name} is finished; give another --name to train anew")
        return finished
    console.print(
        f"run {name}: {len(splits.train)} training, {len(splits.validation)} validation and {len(splits.test)} test "
        f"cases, {workers} worker{'s' if workers > 1 else ''} with a {'GPU' if use_gpu else 'share of the CPU'} each"
    )
    plan = TrainPlan(config=config, store=store.uri, splits=splits, cache=cache_folder())
    with TrainingProgress(console, epochs=config.epochs, workers=workers, use_gpu=use_gpu) as progress:
        sizes = workers if least == workers else (least, workers)
        result = stop.guard(
            lambda: fit(plan, folder, workers=sizes, use_gpu=use_gpu, board=progress.board), ask=progress.ask_to_stop
        )
    if "failed" in result:
        raise InputError(result["failed"])
    if "stopped" in result:
        return result
    summary = {
        "run": name,
        "folder": folder.uri,
        "store": store.uri,
        "config": dataclasses.asdict(config),
        "git_commit": git_commit(),
        **result,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    folder.write_summary(summary)
    return summary


def check_world_sizes(config: TrainConfig, least: int, most: int) -> None:
    """Raise InputError where some number of workers that the run may have cannot share out the batch equally."""
    batch = config.sampling.global_batch_size
    if least > most:
        raise InputError(f"--min-workers {least} is more than --workers {most}")
    for workers in range(least, most + 1):
        if batch % workers:
            fits = [size for size in range(1, batch + 1) if batch % size == 0]
            raise InputError(
                f"--sampling.global-batch-size {batch} does not divide among {workers} workers: "
                f"give --workers {' or '.join(map(str, fits))}, or another batch size"
            )


if __name__ == "__main__":
    sys.exit(run_command(main))
