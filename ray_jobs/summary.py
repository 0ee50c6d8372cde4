"""The end of a run: a table for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from storage import REGIONS


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Print scores per region, throughput, and where everything lies."""
    validation, test = summary["validation"], summary["test"]
    table = Table(title=f"run {summary['run']}")
    for column in ("region", "threshold", "val IoU", "val Dice", "test IoU", "test Dice", "baseline"):
        table.add_column(column, justify="left" if column == "region" else "right")
    for region in (*REGIONS, "mean"):
        scores = [part[kind][region] for part in (validation, test) for kind in ("iou", "dice")]
        threshold = validation["threshold"].get(region)
        table.add_row(
            region,
            "" if threshold is None else f"{threshold:.3f}",
            *(f"{score:.3f}" for score in scores),
            f"{summary['baseline_iou'][region]:.3f}",
        )
    console.print(table)
    console.print(
        f"{validation['cases']} validation and {test['cases']} test cases; thresholds chosen on validation. "
        "Baseline: IoU of the best threshold on any single modality, validation cases."
    )
    speed = summary["throughput"]
    console.print(
        f"{speed['patches_per_second']:.2f} patches/s, {speed['data_wait_fraction']:.2%} of the time spent waiting for "
        f"data ({speed['world_size']} x {speed['device']}, {speed['precision']})"
    )
    places = {"store": summary["store"], "run folder": summary["folder"], "checkpoint": summary["checkpoint"]}
    for what, place in places.items():
        console.print(f"{what:<11} {place}", soft_wrap=True, highlight=False)
