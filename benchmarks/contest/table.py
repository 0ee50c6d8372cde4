"""Tables of the runs that have a record."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.contest.methods import METHODS, PARITY, SHORT
from benchmarks.contest.settings import AS_IT_IS
from ray_jobs.evaluation.out_of_fold import mean_and_interval

LEVELS = (0.5, 0.6, 0.7, 0.8)
"""Mean Dice whose first sight is told in minutes."""
SETS = ("flair", "t1ce", "t1ce+flair")
"""Scans of which networks of their own are trained."""
ALL_SCANS = "all"
Record = Mapping[str, Any]
Rows = list[dict[str, str | float | int]]


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records that are there."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


def accuracy_rows(records: Sequence[Record]) -> dict[str, Rows]:
    """A table for each budget, by its title: a row for each method, over the splits that are done."""
    by_budget: dict[float, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if "cpu_minutes" in record["budget"]:
            by_budget[record["budget"]["cpu_minutes"]][record["method"]].append(record)
    return {
        f"Accuracy after {minutes:g} CPU-minutes": [
            method_row(methods[name], [] if name == "ours" else methods.get("ours", []))
            for name in METHODS
            if name in methods
        ]
        for minutes, methods in sorted(by_budget.items())
    }  # fmt: skip


def method_row(runs: Sequence[Record], ours: Sequence[Record]) -> dict[str, str | float | int]:
    """Means over all test cases of a method's runs; of runs too short or too long the steps alone count.

    `ours`: what the runs are compared with, by the cases that both have scored.
    """
    row: dict[str, str | float | int] = {
        "method": runs[0]["method_title"],
        "sizes": runs[0]["settings"]["sizes"],
        "steps": round(mean(run["steps"] for run in runs)),
        "CPU min": mean(run["cpu_seconds"]["train"] for run in runs) / 60,
        "splits": len(runs),
    }
    if any(run["short"] for run in runs):
        return {**row, "counts": f"no: fewer than {SHORT} steps, not run"}
    finals = [run["curve"][-1]["cases"] for run in runs]
    regions = list(next(iter(finals[0].values())))
    dice = {region: mean(mean_of(cases, "dice", region) for cases in finals) for region in regions}
    row |= {f"{region} Dice": round(value, 3) for region, value in dice.items()}
    row |= {"Dice": round(mean(dice.values()), 3), "IoU": round(mean(mean_of(cases, "iou") for cases in finals), 3)}
    row |= {f"min to {level:g}": minutes_to(runs, level) for level in LEVELS}
    cases = sum(len(run["split"]["test"]) for run in runs)
    row["CPU min a predicted case"] = sum(run["curve"][-1]["predict_cpu_seconds"] for run in runs) / 60 / cases
    few, over = float(row["steps"]) < SHORT, not all(run["within_budget"] for run in runs)
    row["counts"] = f"no: fewer than {SHORT} steps" if few else "no: over the budget" if over else "yes"
    ahead = paired(ours, runs, "dice")
    return {**row, "ours is ahead by": ahead} if ahead else row


def final_scores(runs: Sequence[Record]) -> dict[str, Any]:
    """Each case's scores by its run's last weights."""
    return {case: regions for run in runs for case, regions in run["curve"][-1]["cases"].items()}


def paired(runs: Sequence[Record], beside: Sequence[Record], score: str) -> str:
    """How far the runs' mean score is above the others', over the cases that both have; empty where there is none."""
    one, other = final_scores(runs), final_scores(beside)
    cases = sorted(set(one) & set(other))
    if not cases:
        return ""
    each = [[value] for value in differences(one, other, score, cases)]
    means, low, high = mean_and_interval(np.array(each), cases)
    return f"{_difference(means[0], low[0], high[0])}, {len(cases)} cases"


def differences(one: Mapping[str, Any], other: Mapping[str, Any], score: str, cases: Iterable[str]) -> list[float]:
    """Of each case's mean over its regions."""
    return [mean_of({case: one[case]}, score) - mean_of({case: other[case]}, score) for case in cases]


def mean_of(cases: Mapping[str, Any], score: str, region: str | None = None) -> float:
    """Mean over cases, of one region or of all."""
    return mean(
        own[score] for regions in cases.values() for name, own in regions.items() if region is None or name == region
    )


def minutes_to(runs: Sequence[Record], level: float) -> str:
    """CPU-minutes until weights that were kept have this mean Dice, if they have in every run."""
    seen = [
        next((kept["cpu_seconds"] for kept in run["curve"] if mean_of(kept["cases"], "dice") >= level), None)
        for run in runs
    ]
    reached = [seconds for seconds in seen if seconds is not None]
    return f"{mean(reached) / 60:.3g}" if len(reached) == len(seen) else "–"


def parity_rows(records: Sequence[Record]) -> dict[str, Rows]:
    """A row for each seed that both have done, and in the title their difference with its interval over all pairs."""
    ours, theirs = PARITY
    runs = {(run["seed"], run["method"]): run for run in records}
    seeds = sorted({seed for seed, _ in runs if {(seed, ours), (seed, theirs)} <= set(runs)})
    if not seeds:
        return {}
    rows: Rows = []
    pairs: list[float] = []
    for seed in seeds:
        of_ours, of_theirs = (final_scores([runs[seed, name]]) for name in (ours, theirs))
        each = differences(of_ours, of_theirs, "dice", of_ours)
        dice = {"ours, Dice": mean_of(of_ours, "dice"), "nnU-Net v2, Dice": mean_of(of_theirs, "dice")}
        rows.append({"seed": seed, **dice, "difference": mean(each)})
        pairs += each
    half = float(stats.sem(pairs) * stats.t.ppf(0.975, len(pairs) - 1))
    middle, steps = mean(pairs), runs[seeds[0], ours]["steps"]
    said = f"{middle:+.3f}, 95% from {middle - half:+.3f} to {middle + half:+.3f}, {len(pairs)} pairs"
    return {f"Trained by ours and by nnU-Net v2's trainer for {steps} steps, difference of Dice {said}": rows}


def trial_rows(records: Sequence[Record]) -> dict[str, Rows]:
    """A table for each budget and number of folds: the preset as it is, then each change, paired by case with it."""
    budgets: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        cases = len(record["split"]["train"]) + len(record["split"]["test"])
        folds = round(cases / len(record["split"]["test"]))
        title = (
            f"Changes of the preset laptop, {record['budget']['cpu_minutes']:g} CPU-minutes in each of {folds} folds"
        )
        budgets[title][record["method"]].append(record)
    return {
        title: [
            trial_row(name, trials[name], [] if name == AS_IT_IS else trials.get(AS_IT_IS, []))
            for name in sorted(trials, key=lambda name: (name != AS_IT_IS, name))
        ]
        for title, trials in sorted(budgets.items())
    }


def trial_row(name: str, runs: Sequence[Record], beside: Sequence[Record]) -> dict[str, str | float | int]:
    """Means over the cases of the folds that are done; the difference is of those that the preset as it is has too."""
    ours = final_scores(runs)
    regions = list(next(iter(ours.values())))
    row: dict[str, str | float | int] = {
        "change": name,
        "flags": " ".join([*runs[0]["settings"]["flags"][1:], *runs[0]["settings"].get("inference", [])]) or "none",
        "steps": round(mean(run["steps"] for run in runs)),
        "cases": len(ours),
    }
    row |= {f"{region} IoU": round(mean_of(ours, "iou", region), 3) for region in regions}
    row["IoU"] = round(mean_of(ours, "iou"), 3)
    difference = paired(runs, beside, "iou")
    return {**row, "difference": difference} if difference else row


def _difference(middle: float, low: float, high: float) -> str:
    return f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"


def missing_scans_rows(records: Sequence[Record]) -> dict[str, Rows]:
    """A row for all scans and for each of SETS, as far as both of a row's networks have scored the same cases."""
    scored: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for record in records:
        scored[record["method"], record["scans"]] |= record["curve"][-1]["cases"]
    # In a store of its own scans a network has all there are.
    pairs = {ALL_SCANS: ("usual", ALL_SCANS), **{scans: (f"only-{scans}", ALL_SCANS) for scans in SETS}}
    rows: Rows = []
    for scans, beside in pairs.items():
        ours, theirs = scored["dropout", scans], scored[beside]
        cases = sorted(set(ours) & set(theirs))
        if not cases:
            continue
        row: dict[str, str | float | int] = {"scans": scans, "cases": len(cases)}
        regions = list(ours[cases[0]])
        for title, wanted in {"IoU": regions, **{f"{region} IoU": [region] for region in regions}}.items():
            each = [[mean(of[case][region]["iou"] for region in wanted) for of in (ours, theirs)] for case in cases]
            values_NK = np.array([[one, other, one - other] for one, other in each])
            means_K, low_K, high_K = mean_and_interval(values_NK, cases)
            if title == "IoU":
                row |= {"with dropout": round(means_K[0], 3), "without": round(means_K[1], 3)}
            row[f"difference of {title}"] = _difference(means_K[2], low_K[2], high_K[2])
        rows.append(row)
    steps = [record["steps"] for record in records]
    title = f"One network for any scans, beside one for each set: {min(steps)} to {max(steps)} steps" if steps else ""
    return {title: rows} if rows else {}
