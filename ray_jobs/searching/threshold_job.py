"""The best thresholds of a checkpoint, from one pass over the cases to thresholds.json, its picture and a table."""

import json
from collections.abc import Sequence

from rich.console import Console

from ray_jobs.evaluation.validation import curves_of
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.pictures.figures import draw_threshold_curves
from ray_jobs.pictures.sections import as_png
from ray_jobs.searching.cases_to_score import Split
from ray_jobs.searching.threshold_scan import ThresholdScan, scan_thresholds
from ray_jobs.settings.console import figures_table, open_console
from storage.store.objects import Objects

CASES_LEFT_OUT = 3


def find_thresholds(
    checkpoint: str, store: str, split: Split, case_ids: Sequence[str], *, output: str | None, workers: int | None
) -> int:
    """Score the cases, write and print what came; return the exit status: 3 where some cases were left out."""
    console = open_console()
    with ray_running():
        scan = scan_thresholds(checkpoint, store, split, case_ids, console, workers=workers)
    folder = write_scan(scan, output or f"{checkpoint}/scored-{split}")
    print_scan(scan, console)
    console.print(f"{folder}/thresholds.json and thresholds.png", soft_wrap=True, highlight=False)
    return CASES_LEFT_OUT if scan.bad_cases else 0


def write_scan(scan: ThresholdScan, output: str) -> str:
    """Write thresholds.json and thresholds.png to the folder or URL; return it as written."""
    folder = Objects(output, create=True)
    folder.put("thresholds.json", (json.dumps(scan.to_json(), indent=1) + "\n").encode())
    figure = draw_threshold_curves(curves_of(scan.counts), scan.per_region)
    folder.put("thresholds.png", as_png(figure, dpi=120))
    return folder.uri


def print_scan(scan: ThresholdScan, console: Console) -> None:
    """Print the best threshold for each region, and the best shared one."""
    found = scan.to_json()
    cases = len(scan.counts.case_ids)
    columns = ("threshold", "IoU", "Dice", "shared threshold", "IoU there", "Dice there")
    table = figures_table(f"{cases} {scan.split} cases, each predicted once", "region", *columns)
    for region, own in found["per_region"].items():
        shared = found["shared"][region]
        figures = [f"{scores[key]:.3f}" for scores in (own, shared) for key in ("threshold", "iou", "dice")]
        table.add_row(region, *figures)
    console.print(table)
