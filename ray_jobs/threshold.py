"""Find the best thresholds of a checkpoint in one pass over the cases: `python ray_jobs/threshold.py --help`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import tyro
from rich.console import Console
from rich.table import Table

from ray_jobs.config import environment_default
from ray_jobs.console import open_console
from ray_jobs.exit_status import run_command
from ray_jobs.figures import draw_threshold_curves
from ray_jobs.ray_start import ray_running
from ray_jobs.threshold_scan import Split, ThresholdScan, cases_of, scan_thresholds
from ray_jobs.trained import find_checkpoint
from ray_jobs.validation import curves_of
from storage import InputError
from storage.objects import Objects

CASES_LEFT_OUT = 3


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """The threshold with the best IoU for each region, exact on a grid of 0.001, from one pass over the cases."""

    checkpoint: str
    """Folder or s3:// URL of a checkpoint, or of a run: then its best one."""
    store: str | None = None
    """Zarr store made by convert.py, a path or an s3:// URL. Default: BRATS_STORE."""
    split: Split = "validation"
    """The cases to score, as the checkpoint's run dealt them out: of another store only all."""
    output: str | None = None
    """Folder or s3:// URL for thresholds.json and thresholds.png. Default: scored-SPLIT inside the checkpoint."""
    workers: int | None = None
    """Cases predicted at once. Default: one per GPU; without GPUs one per CPU, as long as each has 4 GB of memory."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers must be at least 1, got {self.workers}")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status: 3 where some cases were left out."""
    config = tyro.cli(ThresholdConfig, args=list(arguments), description=__doc__)
    store = config.store or environment_default("STORE")
    if store is None:
        raise InputError("wanted --store PATH_OR_URL, got none, and BRATS_STORE is not set")
    checkpoint = find_checkpoint(config.checkpoint)
    case_ids = cases_of(store, config.split, checkpoint.uri)  # what is wrong is said before Ray starts
    console = open_console()
    with ray_running():
        scan = scan_thresholds(checkpoint.uri, store, config.split, case_ids, console, workers=config.workers)
    output = write_scan(scan, config.output or f"{checkpoint.uri}/scored-{config.split}")
    print_scan(scan, console)
    console.print(f"{output}/thresholds.json and thresholds.png", soft_wrap=True, highlight=False)
    return CASES_LEFT_OUT if scan.bad_cases else 0


def write_scan(scan: ThresholdScan, output: str) -> str:
    """Write thresholds.json and thresholds.png to the folder or URL; return it as written."""
    folder = Objects(output, create=True)
    folder.put("thresholds.json", (json.dumps(scan.to_json(), indent=1) + "\n").encode())
    picture = BytesIO()
    draw_threshold_curves(curves_of(scan.counts), scan.per_region).savefig(picture, dpi=120, format="png")
    folder.put("thresholds.png", picture.getvalue())
    return folder.uri


def print_scan(scan: ThresholdScan, console: Console) -> None:
    """Print the best threshold for each region, and the best shared one."""
    found = scan.to_json()
    cases = len(scan.counts.case_ids)
    table = Table(title=f"{cases} {scan.split} cases, each predicted once")
    table.add_column("region")
    for column in ("threshold", "IoU", "Dice", "shared threshold", "IoU there", "Dice there"):
        table.add_column(column, justify="right")
    for region, own in found["per_region"].items():
        shared = found["shared"][region]
        figures = [f"{scores[key]:.3f}" for scores in (own, shared) for key in ("threshold", "iou", "dice")]
        table.add_row(region, *figures)
    console.print(table)


if __name__ == "__main__":
    sys.exit(run_command(main))
