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
    for region in validation["iou"]:
        scores = [part and part[kind][region] for part in (validation, test) for kind in ("iou", "dice")]
        threshold = validation["threshold"].get(region)
        table.add_row(
            region,
            "" if threshold is None else f"{threshold:.3f}",
            *("" if score is None else f"{score:.3f}" for score in scores),
            f"{summary['baseline_iou'][region]:.3f}",
        )
    console.print(table)
    objective: Objective = summary.get("objective", "iou")  # earlier versions maximised nothing else
    given = summary.get("config", {}).get("thresholds") is not None
    console.print(
        f"{validation['cases']} validation and {test['cases'] if test else 'no'} test cases; thresholds "
        f"{'as given,' if given else 'and'} epoch chosen by {SCORE_NAMES[objective]} on validation. Baseline: IoU of "
        f"the best threshold on any single modality, validation cases. {SCORES_ARE}."
    )
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


def _print_time(time: Mapping[str, Any], console: Console) -> None:
    table = figures_table("where the time went", "part", "seconds", "share")
    total = sum(time["seconds"].values()) or 1.0
    for part, seconds in time["seconds"].items():
        table.add_row(part, f"{seconds:.1f}", f"{seconds / total:.1%}")
    console.print(table)
