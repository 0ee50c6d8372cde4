"""A run from its checked settings to summary.json: decide, train until it ends or is stopped, say what came of it."""

import datetime
from typing import Any

from rich.console import Console

from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, RunFolder
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.settings.config import TrainConfig, default_run_name, keep_given_patch, run_identity
from ray_jobs.settings.console import open_console
from ray_jobs.training.fit import fit
from ray_jobs.training.gentle_stop import Stop
from ray_jobs.training.planning import Decided, decide
from ray_jobs.training.run_input import write_cohort_meanwhile
from ray_jobs.watching.progress import TrainingProgress
from ray_jobs.watching.provenance import git_commit
from ray_jobs.watching.summary import print_summary
from storage import InputError


def train(config: TrainConfig) -> int:
    """Do the whole job and print what came of it; return the exit status."""
    console = open_console()
    stop = Stop()
    cohort = write_cohort_meanwhile(config, console)  # Ray's processes wait for each other while they start
    with ray_running():
        if cohort.is_alive():
            cohort.join()
        summary = train_run(config, console, stop)
    if "stopped" in summary:
        console.print(f"stopped {summary['stopped']}; the same command goes on from there", soft_wrap=True)
        return stop.exit_status
    print_summary(summary, console)
    return 0


def train_run(config: TrainConfig, console: Console, stop: Stop) -> dict[str, Any]:
    """Do the whole job and return what summary.json says. A finished run of the same name returns at once."""
    decided = decide(config, console)
    config = decided.plan.config
    name = config.name or default_run_name(config, decided.store_digest)
    folder = decided.open_folder(name)
    config = keep_given_patch(config, folder.read(CONFIG))
    decided = decided.with_plan(config=config)
    finished = folder.claim(run_identity(config, decided.store_digest))
    if finished is not None:
        console.print(f"run {name} is finished; give another --name to train anew")
        return finished
    with folder.only_writer():
        return train_in(folder, decided, console, stop)


def train_in(folder: RunFolder, decided: Decided, console: Console, stop: Stop) -> dict[str, Any]:
    """Train in this folder, which is this command's alone, and return what summary.json says."""
    plan, config, splits = decided.plan, decided.plan.config, decided.plan.splits
    workers, use_gpu = decided.workers, decided.use_gpu
    console.print(
        f"run {folder.name}: {len(splits.train)} training, {len(splits.validation)} validation and "
        f"{len(splits.test)} test cases, {workers} worker{'s' if workers > 1 else ''} with a "
        f"{'GPU' if use_gpu else 'share of the CPU'} each"
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
        "run": folder.name,
        "folder": folder.uri,
        "store": plan.store,
        "git_commit": git_commit(),
        **result,
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    folder.write(SUMMARY, summary)
    return summary
