"""Search the learning rate with Ray Tune: `python ray_jobs/tune.py --help`. Each trial is a whole Ray Train run."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ray_jobs.cohort import check_input
from ray_jobs.command import parse_over_preset
from ray_jobs.console import open_console
from ray_jobs.exit_status import run_command
from ray_jobs.ray_start import ray_running
from ray_jobs.run_folder import RunFolder
from ray_jobs.search import SearchConfig, run_search
from storage import REGIONS

MOST_TRIALS_AT_ONCE = 8


def main(arguments: Sequence[str]) -> int:
    """Run the search the command line describes; return the exit status."""
    search = parse_over_preset(arguments, lambda base: SearchConfig(training=base), SearchConfig)
    check_input(search.training)
    console = open_console()
    with ray_running(tune_drivers=MOST_TRIALS_AT_ONCE):
        results, folder = run_search(search, console)
    print_trials(results, folder, console)
    return 0 if any("iou_mean" in trial for trial in results) else 1


def print_trials(rows: Sequence[dict[str, Any]], folder: RunFolder, console: Console) -> None:
    """Print one line per trial, best first."""
    table = Table(title=f"search {folder.name}")
    columns = ["learning_rate", "epoch", "iou_mean", *(f"{kind}_{r}" for kind in ("iou", "threshold") for r in REGIONS)]
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(f"{row[column]:.4g}" if column in row else row.get("error", "")[:40] for column in columns))
    console.print(table)
    console.print(f"results {folder.uri}/results.json", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(run_command(main))
