"""A run from its checked settings to summary.json: decide, train until it ends or is stopped, say what came of it."""

from typing import Any

from rich.console import Console

from ray_jobs.checkpoints.run_folder import CONFIG
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.on_ray.unfinished import kept_for_another_head
from ray_jobs.settings.config import TrainConfig, default_run_name, keep_given_patch, run_identity
from ray_jobs.settings.console import open_console
from ray_jobs.training.cross_validation import cross_validate, is_part_of_one
from ray_jobs.training.gentle_stop import Stop
from ray_jobs.training.planning import decide
from ray_jobs.training.run_input import write_cohort_meanwhile
from ray_jobs.training.side_by_side import train_all
from ray_jobs.watching.fold_tables import print_folds
from ray_jobs.watching.summary import print_summary
from storage import InputError


def train(config: TrainConfig) -> int:
    """Do the whole job and print what came of it; return the exit status."""
    console = open_console()
    stop = Stop()
    cohort = write_cohort_meanwhile(config, console)  # Ray's processes wait for each other while they start
    # What runs of a cross-validation leave behind on the cluster is found through the dashboard (fit.py).
    shown = config.dashboard or config.splits.folds is not None
    with ray_running(dashboard=shown), kept_for_another_head(config.runs) as stop.when_asked:
        if cohort.is_alive():
            cohort.join()
        summary = train_run(config, console, stop)
    if "stopped" in summary:
        console.print(f"stopped {summary['stopped']}; the same command goes on from there", soft_wrap=True)
        return stop.exit_status
    if "out_of_fold" in summary:
        print_folds(summary, console)
    else:
        print_summary(summary, console)
    return 0


def train_run(config: TrainConfig, console: Console, stop: Stop) -> dict[str, Any]:
    """Do the whole job and return what summary.json says. A finished run of the same name returns at once."""
    decided = decide(config, console)
    if is_part_of_one(decided):
        return cross_validate(decided, console, stop)
    config = decided.plan.config
    name = config.name or default_run_name(config, decided.store_digest)
    folder = decided.open_folder(name)
    config = keep_given_patch(config, folder.read(CONFIG))
    decided = decided.with_plan(config=config)
    finished = folder.claim(run_identity(config, decided.store_digest))
    if finished is not None:
        console.print(f"run {name} is finished; give another --name to train anew")
        return finished
    result = train_all([(folder, decided)], console, stop)[name]
    if "failed" in result:
        raise InputError(result["failed"])
    return result
