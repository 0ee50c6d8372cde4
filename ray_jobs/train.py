"""Train a U-Net on BraTS cases: `python ray_jobs/train.py --help`."""

import dataclasses
import datetime
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ray_jobs.cohort import cache_folder, check_input, find_or_make_store
from ray_jobs.command import parse_training
from ray_jobs.config import TrainConfig, default_run_name, run_identity
from ray_jobs.exit_status import run_command
from ray_jobs.fit import best_checkpoint_name, fit
from ray_jobs.progress import TrainingProgress
from ray_jobs.ray_start import choose_workers, ray_running, refuse_hidden_folder
from ray_jobs.run_folder import RunFolder
from ray_jobs.summary import print_summary
from ray_jobs.train_loop import TrainPlan
from storage import InputError, split_cohort


def main(arguments: Sequence[str]) -> int:
    """Run the job the command line describes; return the exit status."""
    config = parse_training(arguments)
    check_input(config)
    console = Console()
    with ray_running():
        summary = train_run(config, console)
    print_summary(summary, console)
    return 0


def train_run(config: TrainConfig, console: Console) -> dict[str, Any]:
    """Do the whole job and return what summary.json says. A finished run of the same name returns at once."""
    workers, use_gpu = choose_workers(config.workers, gpu=config.gpu)
    check_world_size(config, workers)
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
        result = fit(plan, folder, workers=workers, use_gpu=use_gpu, board=progress.board)
    summary = {
        "run": name,
        "folder": folder.uri,
        "store": store.uri,
        "config": dataclasses.asdict(config),
        "git_commit": git_commit(),
        **result.return_value,
        "checkpoint": f"{folder.uri}/{best_checkpoint_name(result)}",
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    folder.write_summary(summary)
    return summary


def check_world_size(config: TrainConfig, workers: int) -> None:
    """Raise InputError where the global batch cannot be shared out equally."""
    batch = config.sampling.global_batch_size
    if batch % workers:
        fits = [size for size in range(1, batch + 1) if batch % size == 0]
        raise InputError(
            f"--sampling.global-batch-size {batch} does not divide among {workers} workers: "
            f"give --workers {' or '.join(map(str, fits))}, or another batch size"
        )


def git_commit() -> str | None:
    """Return the commit of this code, with `+` where files differ from it; None outside a repository."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"], cwd=here, capture_output=True
        )
    except OSError:  # no git on this machine
        return None
    return found.stdout.decode().strip() or None


if __name__ == "__main__":
    sys.exit(run_command(main))
