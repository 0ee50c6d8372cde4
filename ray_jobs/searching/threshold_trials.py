"""Thresholds as Ray Tune trials, for people who watch Tune: each scores the merged counts at one threshold.

The network runs once, before the first trial; a trial is a look-up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import tune
from rich.console import Console

from models import Objective, ThresholdCounts
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.searching.results import RESULTS
from ray_jobs.searching.search import driver_resources
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.searching.threshold_scan import ThresholdScan, scan_thresholds
from ray_jobs.settings.console import figures_table
from ray_jobs.settings.objective import RULES, SCORE_NAMES, SCORES_ARE, describe_best
from storage import InputError, open_store


def run_threshold_search(
    search: SearchConfig, case_ids: Sequence[str], console: Console
) -> tuple[dict[str, Any], RunFolder]:
    """Score the checkpoint on these cases at every threshold of the grid, each in a trial.

    Returns what results.json says.
    """
    checkpoint, store_uri = search.to_score()
    store = open_store(store_uri)
    name = search.training.name or f"thresholds-{store.digest[:8]}"
    folder = RunFolder(search.training.runs, name)
    if folder.read(RESULTS) is not None:
        raise InputError(f"search {name} in {folder.runs} is finished: give another --name")
    workers, objective = search.training.workers, search.training.objective
    with folder.only_writer():
        scan = scan_thresholds(
            checkpoint, store.uri, search.split, case_ids, console, workers=workers, objective=objective
        )
        thresholds = grid_of(search.threshold_steps, scan.counts)
        with console.status(f"{len(thresholds)} trials"):
            rows = run_trials(scan.counts, scan.region_names, thresholds, folder, objective)
        found: dict[str, Any] = {"rules": RULES, "objective": objective, "split": search.split, "trials": rows}
        found |= {"best": best_of(rows, scan.region_names, objective), "exact": _exact(scan)}
        folder.write(RESULTS, found)
    return found, folder


def grid_of(steps: int, counts: ThresholdCounts) -> list[float]:
    """Return 0, 1/steps … 1, each moved to the nearest threshold that was counted."""
    counted = counts.thresholds
    return [float(counted[round(step / steps * (len(counted) - 1))]) for step in range(steps + 1)]


def run_trials(
    counts: ThresholdCounts,
    regions: Sequence[str],
    thresholds: Sequence[float],
    folder: RunFolder,
    objective: Objective,
) -> list[dict[str, Any]]:
    """Return a row for each threshold, lowest first."""
    merged = ray.put(counts.state())

    def trial(chosen: Mapping[str, Any]) -> None:
        there = ThresholdCounts.from_state(ray.get(merged)).at([chosen["threshold"]] * len(regions))
        scores = {f"iou_{region}": value for region, value in zip(regions, there.iou, strict=True)}
        scores |= {f"dice_{region}": value for region, value in zip(regions, there.dice, strict=True)}
        tune.report({**scores, "iou_mean": there.mean_iou, "dice_mean": there.mean_dice})

    tuner = tune.Tuner(
        tune.with_resources(trial, driver_resources()),
        param_space={"threshold": tune.grid_search(list(thresholds))},
        tune_config=tune.TuneConfig(metric=f"{objective}_mean", mode="max", reuse_actors=True),
        run_config=tune.RunConfig(name=folder.name, storage_path=folder.runs, verbose=0),
    )
    rows = []
    for result in tuner.fit():
        if result.error or result.metrics is None:
            raise InputError(f"threshold {result.config} could not be scored: {result.error}")
        kept = {key: value for key, value in result.metrics.items() if key.startswith(("iou_", "dice_"))}
        rows.append({"threshold": result.config["threshold"], **kept})
    return sorted(rows, key=lambda row: row["threshold"])


def best_of(
    rows: Sequence[Mapping[str, Any]], regions: Sequence[str], objective: Objective
) -> dict[str, dict[str, float]]:
    """Return the best trial for each region, and for all regions at one threshold; of equals, the one nearest 0.5.

    Never 0, at which everything is predicted, whatever the network says.
    """
    best = {}
    rows = [row for row in rows if row["threshold"] > 0]
    for name in (*regions, "mean"):
        top = max(rows, key=lambda row: (row[f"{objective}_{name}"], -abs(row["threshold"] - 0.5)))
        scores = {"iou": top[f"iou_{name}"], "dice": top[f"dice_{name}"]}
        best["shared" if name == "mean" else name] = {"threshold": top["threshold"], **scores}
    return best


def print_threshold_search(found: Mapping[str, Any], folder: RunFolder, console: Console) -> None:
    """Print the best of the trials beside the exact best."""
    objective: Objective = found["objective"]
    name = SCORE_NAMES[objective]
    title, columns = f"{len(found['trials'])} trials, {found['split']} cases", ("best trial's threshold", name)
    table = figures_table(title, "region", *columns, "exact threshold", name)
    for region, top in found["best"].items():
        exact = found["exact"][region]
        figures = (top["threshold"], top[objective], exact["threshold"], exact[objective])
        table.add_row(region, *(f"{value:.3f}" for value in figures))
    console.print(table)
    console.print(f"{describe_best(objective)}. {SCORES_ARE}.", highlight=False)
    console.print(f"results {folder.uri}/{RESULTS}", soft_wrap=True, highlight=False)


def _exact(scan: ThresholdScan) -> dict[str, dict[str, float]]:
    own, shared = (best(scan.objective) for best in (scan.counts.best_per_region, scan.counts.best_shared))
    rows = zip(scan.region_names, own.threshold, own.iou, own.dice, strict=True)
    exact = {region: {"threshold": threshold, "iou": iou, "dice": dice} for region, threshold, iou, dice in rows}
    return exact | {"shared": {"threshold": shared.threshold[0], "iou": shared.mean_iou, "dice": shared.mean_dice}}
