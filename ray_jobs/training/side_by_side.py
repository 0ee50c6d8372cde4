"""Runs that are decided, each trained in its folder to summary.json: one, or several after or beside each other."""

import datetime
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console

from ray_jobs.checkpoints.run_folder import SUMMARY, RunFolder
from ray_jobs.on_ray.ray_start import find_dashboard
from ray_jobs.reporting.run_page import keep_page, write_run_page
from ray_jobs.training.fit import fit
from ray_jobs.training.gentle_stop import Stop
from ray_jobs.training.planning import Decided
from ray_jobs.watching.ledger import Ledger, Limit
from ray_jobs.watching.progress import TrainingProgress
from ray_jobs.watching.provenance import git_commit
from ray_jobs.watching.where_to_look import where_to_look
from storage import InputError


def train_all(
    runs: Sequence[tuple[RunFolder, Decided]], console: Console, stop: Stop, *, at_once: int = 1
) -> dict[str, dict[str, Any]]:
    """Train in these folders, which are this command's alone meanwhile; return what came of each run, by its name.

    That is what its summary.json says, or where it was `stopped`, or why it `failed`, which does not keep the others
    from training. Runs that a signal kept from beginning are not in it.
    """
    under_way: list[TrainingProgress] = []
    ledgers = {folder.name: Ledger(folder) for folder, _ in runs}

    def ask_all() -> bool:
        begun = [progress.ask_to_stop() for progress in [*under_way]]
        if any(begun):
            console.print("saving, then stopping; once more to stop at once")
        return any(begun)

    def train(folder: RunFolder, decided: Decided) -> dict[str, Any]:
        plan, workers, use_gpu = decided.plan, decided.workers, decided.use_gpu
        limit = Limit(dollars=plan.config.max_cost, dollars_an_hour=plan.config.max_cost_an_hour)
        shown: dict[str, Any] = {"epochs": plan.config.epochs, "workers": workers, "use_gpu": use_gpu}
        shown |= {"name": folder.name if at_once > 1 else "", "limit": partial(limit.reached, ledgers.values())}
        show_page = partial(keep_page, write_run_page, folder, partial(console.print, markup=False, soft_wrap=True))
        try:
            with folder.only_writer():
                if (reason := limit.reached(ledgers.values())) is not None:
                    return {"stopped": f"before it began: {reason}; give more"}
                with TrainingProgress(console, ledgers[folder.name], after_saving=show_page, **shown) as progress:
                    console.print(describe_run(folder, decided))
                    under_way.append(progress)
                    if stop.asked:  # after `ask_all` had looked
                        progress.ask_to_stop()
                    result = fit(plan, folder, workers=decided.sizes, use_gpu=use_gpu, board=progress.board)
                    under_way.remove(progress)
                if "stopped" in result and progress.over_limit is not None:
                    result = {"stopped": f"{result['stopped']}: {progress.over_limit}; give more"}
                if "failed" not in result and "stopped" not in result:
                    result = sum_up(folder, decided, result | ledgers[folder.name].summary())
                show_page()
                return result
        except InputError as error:
            return {"failed": str(error)}

    for line in where_to_look(runs[0][0].runs, find_dashboard()) if runs else ():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    works = [partial(train, folder, decided) for folder, decided in runs]
    results = stop.guard_all(works, ask=ask_all, at_once=at_once)
    return {runs[index][0].name: result for index, result in results.items()}


def describe_run(folder: RunFolder, decided: Decided) -> str:
    """Say what is about to train, on what."""
    splits, workers = decided.plan.splits, decided.workers
    return (
        f"run {folder.name}: {len(splits.train)} training, {len(splits.validation)} validation and "
        f"{len(splits.test)} test cases, {workers} worker{'s' if workers > 1 else ''} with a "
        f"{'GPU' if decided.use_gpu else 'share of the CPU'} each"
    )


def sum_up(folder: RunFolder, decided: Decided, result: dict[str, Any]) -> dict[str, Any]:
    """Write summary.json, with which the run is finished, and return what it says."""
    summary = {**about(folder, decided), **result, **finished_now()}
    folder.write(SUMMARY, summary)
    return summary


def about(folder: RunFolder, decided: Decided) -> dict[str, Any]:
    """What every summary says first: which run it is of, and where that and its store lie."""
    return {"run": folder.name, "folder": folder.uri, "store": decided.plan.store, "git_commit": git_commit()}


def finished_now() -> dict[str, str]:
    """What every summary says last."""
    return {"finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
