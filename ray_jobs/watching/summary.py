"""The end of a run: a table for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from models import Objective
from ray_jobs.settings.console import figures_table
from ray_jobs.settings.objective import SCORE_NAMES, SCORES_ARE


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print scores per region, throughput, and where everything lies."""
    validation, test = summary["validation"], summary["test"]
    columns = ("threshold", "val IoU", "val Dice", "test IoU", "test Dice", "baseline")
    table = figures_table(f"run {summary['run']}", "region", *columns)
    thresholds = summary["decision"]["thresholds"] if "decision" in summary else validation["threshold"]
    for region in (*thresholds, "mean"):
        scores = [part and part[kind][region] for part in (validation, test) for kind in ("iou", "dice")]
        baseline = summary["baseline_iou"] and summary["baseline_iou"][region]
        figures = (thresholds.get(region), *scores, baseline)
        table.add_row(region, *("" if figure is None else f"{figure:.3f}" for figure in figures))
    console.print(table)
    objective: Objective = summary.get("objective", "iou")  # earlier versions maximised nothing else
    parts = {"validation": validation, "test": test}
    cases = " and ".join(f"{part['cases'] if part else 'no'} {name}" for name, part in parts.items())
    console.print(f"{cases} cases; {_say_choice(summary, SCORE_NAMES[objective])}{SCORES_ARE}.")
    for line in summary.get("decision", {}).get("said", ()):
        console.print(line, markup=False, highlight=False)
    if (validation or test or {}).get("plain"):
        named = {name: part["plain"][objective]["mean"] for name, part in parts.items() if part}
        said = ", ".join(f"{name} {score:.3f}" for name, score in named.items())
        console.print(f"Plain (0.5, all is kept): mean {SCORE_NAMES[objective]} on {said}.", highlight=False)
    _print_time(summary["time"], console)
    speed = summary["throughput"]
    console.print(
        f"{speed['patches_per_second']:.2f} patches/s, {speed['data_wait_fraction']:.2%} of the time spent waiting for "
        f"data ({speed['world_size']} x {speed['device']}, {speed['precision']})"
    )
    console.print(summary["time"]["advice"], soft_wrap=True, highlight=False)
    places = {"store": summary["store"], "run folder": summary["folder"], "checkpoint": summary["checkpoint"]}
    for what, place in places.items():
        console.print(f"{what:<11} {place}", soft_wrap=True, highlight=False)


def _say_choice(summary: Mapping[str, Any], score: str) -> str:
    """What was chosen on which cases, and what the baseline is; nothing where no case validated."""
    if not summary["validation"]:
        return ""
    if summary.get("config", {}).get("thresholds") is not None:
        chosen = "thresholds as given, epoch"
    elif "decision" not in summary:  # an earlier version chose the best thresholds, and scored the same cases at them
        chosen = "thresholds and epoch"
    else:
        chosen = "each validation case scored by what the others decide, test cases by what all do; epoch"
    baseline = "Baseline: IoU of the best threshold on any single modality, validation cases. "
    return f"{chosen} chosen by {score} on validation. {baseline}"


def _print_time(time: Mapping[str, Any], console: Console) -> None:
    table = figures_table("where the time went", "part", "seconds", "share")
    total = sum(time["seconds"].values()) or 1.0
    for part, seconds in time["seconds"].items():
        table.add_row(part, f"{seconds:.1f}", f"{seconds / total:.1%}")
    console.print(table)
