"""A cross-validation: a folder of runs, one for each fold, and what they say together."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import ray
from rich.console import Console

from ray_jobs.checkpoints.folds import fold_folder, fold_of
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, RunFolder
from ray_jobs.evaluation.out_of_fold import sum_up_folds
from ray_jobs.evaluation.pooled import decide_together
from ray_jobs.on_ray.address import on_a_cluster
from ray_jobs.reporting.folds_page import write_folds_page
from ray_jobs.reporting.run_page import keep_page
from ray_jobs.settings.config import TrainConfig, default_run_name, keep_given_patch, run_identity
from ray_jobs.training.gentle_stop import Stop
from ray_jobs.training.planning import Decided
from ray_jobs.training.side_by_side import about, finished_now, train_all
from ray_jobs.watching.ledger import add_up_folds
from storage import CaseInfo, InputError, open_store


def is_part_of_one(decided: Decided) -> bool:
    """Whether the run is a cross-validation or a fold of one, and not a fold by itself, as earlier versions made it."""
    config = decided.plan.config
    if config.splits.folds is None:
        return False
    name = config.name or default_run_name(config, decided.store_digest)
    return config.splits.fold is None or fold_of(RunFolder(config.runs, name).read(CONFIG)) is None


def cross_validate(decided: Decided, console: Console, stop: Stop) -> dict[str, Any]:
    """Train the folds that are not finished, or the one that is named; return what summary.json says of all of them.

    As long as folds are missing that is what it says of the one that is named.
    """
    named = decided.plan.config.splits.fold
    decided, folder = open_whole(decided)
    finished = folder.claim(run_identity(decided.plan.config, decided.store_digest))
    if finished is not None:
        console.print(f"run {folder.name} is finished; give another --name to train anew")
        return finished
    every = [decided.of_fold(fold) for fold in range(decided.plan.config.splits.folds or 0)]
    wanted = {fold: every[fold] for fold in (range(len(every)) if named is None else [named])}
    with folder.only_writer() if named is None else nullcontext():
        todo = []
        for fold, own in wanted.items():
            place = fold_folder(folder, fold)
            if place.claim(run_identity(own.plan.config, own.store_digest)) is None:
                todo.append((place, own))
            else:
                console.print(f"run {place.name} is finished")
        results = train_all(todo, console, stop, at_once=most_at_once(decided, len(todo)))
    stopped = [f"{name} {result['stopped']}" for name, result in results.items() if "stopped" in result]
    if stopped or len(results) < len(todo):
        return {"stopped": ", ".join(stopped) or "between two folds"}
    if failed := [f"run {name} failed: {result['failed']}" for name, result in results.items() if "failed" in result]:
        raise InputError("; ".join(failed))
    return conclude(decided, folder, len(every), console) or fold_folder(folder, named or 0).read(SUMMARY) or {}


def open_whole(decided: Decided) -> tuple[Decided, RunFolder]:
    """Return what is decided for all folds, and their folder, which is the same whichever fold is named."""
    plan = decided.plan
    config: TrainConfig = dataclasses.replace(plan.config, splits=dataclasses.replace(plan.config.splits, fold=None))
    folder = decided.open_folder(config.name or default_run_name(config, decided.store_digest))
    config = keep_given_patch(config, folder.read(CONFIG))
    return decided.with_plan(config=config, settled_in=folder.uri), folder


def most_at_once(decided: Decided, folds: int) -> int:
    """Return how many folds train side by side.

    On a cluster each waits for its workers' place by itself; on one machine without GPUs they would share its cores.
    """
    if on_a_cluster():
        return folds
    return max(1, int(ray.cluster_resources().get("GPU", 0) // decided.workers)) if decided.use_gpu else 1


def decide_and_sum_up(summaries: Mapping[int, Mapping[str, Any]], infos: Sequence[CaseInfo]) -> dict[str, Any]:
    """Let all folds decide together, save that with each, and return what summary.json of the whole says."""
    checkpoints = [find_checkpoint(summary["checkpoint"]) for summary in summaries.values()]
    some = next(iter(summaries.values()))
    regions = list(some["validation"]["threshold"])
    together = decide_together(checkpoints, regions, some["objective"])
    if together is None:
        return sum_up_folds(summaries, infos)
    together.save(checkpoints, regions)
    return {**sum_up_folds(summaries, infos, together.by_case), "decision": together.summary}


def conclude(decided: Decided, folder: RunFolder, folds: int, console: Console) -> dict[str, Any] | None:
    """Write summary.json of the whole and return what it says; None, and say so, while folds are missing."""
    summaries = {fold: fold_folder(folder, fold).read(SUMMARY) for fold in range(folds)}
    there = {fold: summary for fold, summary in summaries.items() if summary is not None}
    if missing := [str(fold) for fold in summaries if fold not in there]:
        console.print(f"run {folder.name}: still to train for the scores of all cases: fold {', '.join(missing)}")
        return None
    infos = open_store(decided.plan.store).infos()
    costs = add_up_folds(there.values())
    summary = {**about(folder, decided), **decide_and_sum_up(there, infos), **costs, **finished_now()}
    folder.write(SUMMARY, summary)
    keep_page(write_folds_page, folder, partial(console.print, markup=False, soft_wrap=True))
    return summary
