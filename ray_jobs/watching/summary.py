"""The end of a run: a table for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from models import Objective
from ray_jobs.settings.console import figures_table
from ray_jobs.settings.objective import SCORE_NAMES, SCORES_ARE
from ray_jobs.watching.restarts import describe_steps


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print scores per region, throughput, and where everything lies."""
    validation, test = summary["validation"], summary["test"]
    columns = ("threshold", "val IoU", "val Dice", "test IoU", "test Dice", "baseline")
    table = figures_table(f"run {summary['run']}", "region", *columns)
    thresholds = summary["thresholds"] if "thresholds" in summary else validation["threshold"]
    for region in (*thresholds, "mean"):
        scores = [part and part[kind][region] for part in (validation, test) for kind in ("iou", "dice")]
        baseline = summary["baseline_iou"] and summary["baseline_iou"][region]
        figures = (thresholds.get(region), *scores, baseline)
        table.add_row(region, *("" if figure is None else f"{figure:.3f}" for figure in figures))
    console.print(table)
    objective: Objective = summary.get("objective", "iou")  # earlier versions maximised nothing else
    cases = " and ".join(
        f"{part['cases'] if part else 'no'} {name}" for name, part in (("validation", validation), ("test", test))
    )
    console.print(f"{cases} cases; {_describe_choices(summary, objective)}")
    for line in (summary.get("decision") or {}).get("said", ()):
        console.print(line, highlight=False)
    if validation and (plain := validation.get("plain")):
        also = f", test {test['plain'][objective]['mean']:.3f}" if test else ""
        score = f"mean {SCORE_NAMES[objective]} on validation {plain[objective]['mean']:.3f}{also}"
        console.print(f"Plain (0.5, all is kept): {score}.", highlight=False)
    _print_time(summary["time"], console)
    speed = summary["throughput"]
    console.print(
        f"{speed['patches_per_second']:.2f} patches/s, {speed['data_wait_fraction']:.2%} of the time spent waiting for "
        f"data ({speed['world_size']} x {speed['device']}, {speed['precision']})"
    )
    console.print(summary["time"]["advice"], soft_wrap=True, highlight=False)
    for line in describe_costs(summary):
        console.print(line, soft_wrap=True, highlight=False)
    places = {"store": summary["store"], "run folder": summary["folder"], "checkpoint": summary["checkpoint"]}
    places["look at it"] = f"python ray_jobs/show.py {summary['folder']}"
    for what, place in places.items():
        console.print(f"{what:<11} {place}", soft_wrap=True, highlight=False)


def _describe_choices(summary: Mapping[str, Any], objective: Objective) -> str:
    """What was chosen and on what, and so what is known of it."""
    given = summary.get("config", {}).get("thresholds") is not None
    if not summary["validation"]:
        return (
            f"nothing was chosen: the last epoch, thresholds {'as given' if given else 'of 0.5'}. Whether an earlier "
            f"epoch or other thresholds would be better is not known. {SCORES_ARE}."
        )
    what = "each validation case scored by what the others decide, test cases by what all do; epoch"
    if given:
        what = "thresholds as given, epoch"
    elif "decision" not in summary:  # an earlier version took the best thresholds, and scored the same cases at them
        what = "thresholds and epoch"
    return (
        f"{what} chosen by {SCORE_NAMES[objective]} on validation. "
        f"Baseline: IoU of the best threshold on any single modality, validation cases. {SCORES_ARE}."
    )


def describe_costs(summary: Mapping[str, Any]) -> list[str]:
    """What restarts lost, and what the run cost where prices are known; nothing of a run that lost and cost none."""
    lines, restarts, cost = [], summary.get("restarts"), summary.get("cost")
    if restarts and restarts["count"]:
        dollars = "" if restarts["dollars_lost"] is None else f" and ${restarts['dollars_lost']:.2f}"
        lines.append(
            f"restarts: {restarts['count']}, {restarts['seconds_lost'] / 60:.1f} minutes{dollars} lost, "
            f"{describe_steps(restarts['steps_again'])} done twice"
        )
    if cost and cost["dollars"]:
        lines.append(
            f"cost: ${cost['dollars']:.2f} for {cost['seconds'] / 3600:.2f} hours of workers ({cost['prices']})"
        )
    return lines


def _print_time(time: Mapping[str, Any], console: Console) -> None:
    table = figures_table("where the time went", "part", "seconds", "share")
    total = sum(time["seconds"].values()) or 1.0
    for part, seconds in time["seconds"].items():
        table.add_row(part, f"{seconds:.1f}", f"{seconds / total:.1%}")
    console.print(table)
