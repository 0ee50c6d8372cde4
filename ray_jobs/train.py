"""Train a U-Net on BraTS cases: `python ray_jobs/train.py --help`."""

import dataclasses
import datetime
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ray_jobs.cohort import check_input
from ray_jobs.command import parse_training
from ray_jobs.config import TrainConfig, default_run_name, run_identity
from ray_jobs.console import open_console
from ray_jobs.exit_status import run_command
from ray_jobs.fit import fit
from ray_jobs.gentle_stop import Stop
from ray_jobs.planning import decide
from ray_jobs.progress import TrainingProgress
from ray_jobs.provenance import git_commit
from ray_jobs.ray_start import ray_running
from ray_jobs.summary import print_summary
from storage import InputError


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
    decided = decide(config, console)
    plan, splits = decided.plan, decided.plan.splits
    name = config.name or default_run_name(config, decided.store_digest)
    folder = decided.open_folder(name)
    finished = folder.claim(run_identity(config, decided.store_digest))
    if finished is not None:
        console.print(f"run {name} is finished; give another --name to train anew")
        return finished
    workers, use_gpu = decided.workers, decided.use_gpu
    console.print(
        f"run {name}: {len(splits.train)} training, {len(splits.validation)} validation and {len(splits.test)} test "
        f"cases, {workers} worker{'s' if workers > 1 else ''} with a {'GPU' if use_gpu else 'share of the CPU'} each"
    )
    with TrainingProgress(console, epochs=config.epochs, workers=workers, use_gpu=use_gpu) as progress:
        result = stop.guard(
            lambda: fit(plan, folder, workers=decided.sizes, use_gpu=use_gpu, board=progress.board),
            ask=progress.ask_to_stop,
        )
    if "failed" in result:
        raise InputError(result["failed"])
    if "stopped" in result:
        return result
    summary = {
        "run": name,
        "folder": folder.uri,
        "store": plan.store,
        "config": dataclasses.asdict(config),
        "git_commit": git_commit(),
        **result,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    folder.write_summary(summary)
    return summary


if __name__ == "__main__":
    sys.exit(run_command(main))
