"""A search from its checked settings to the table of its trials."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from models import Objective
from ray_jobs.checkpoints.checkpoint import RECORD
from ray_jobs.checkpoints.checkpoint_store import BEST
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.on_ray.unfinished import kept_for_another_head
from ray_jobs.reporting.run_page import keep_page
from ray_jobs.searching.figure import save_search_figure
from ray_jobs.searching.results import RESULTS, describe_values, has_folds
from ray_jobs.searching.search import run_search
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.searching.search_page import write_search_page
from ray_jobs.searching.threshold_trials import print_threshold_search, run_threshold_search
from ray_jobs.settings.console import figures_table
from ray_jobs.settings.objective import SCORE_NAMES, SCORES_ARE

MOST_TRIALS_AT_ONCE = 8


def search_thresholds(search: SearchConfig, case_ids: Sequence[str], console: Console) -> int:
    """Score the checkpoint on these cases, a threshold a trial; return the exit status."""
    with ray_running(tune_drivers=MOST_TRIALS_AT_ONCE):
        found, folder = run_threshold_search(search, case_ids, console)
    keep_page(write_search_page, folder, partial(console.print, markup=False, soft_wrap=True))
    print_threshold_search(found, folder, console)
    return 0


def search_fields(search: SearchConfig, console: Console) -> int:
    """Train every trial; return the exit status: 1 where none came to a score."""
    kept = kept_for_another_head(search.training.runs, more=["--resume"])
    with ray_running(tune_drivers=MOST_TRIALS_AT_ONCE), kept:
        found = run_search(search, console)
    rows, folder = found.rows, found.folder
    scored = any("iou" in row for row in rows)
    if scored:
        save_search_figure(rows, found.regions, folder, found.objective)
    keep_page(write_search_page, folder, partial(console.print, markup=False, soft_wrap=True))
    print_trials(rows, folder, console, found.objective)
    return 0 if scored else 1


def print_trials(rows: Sequence[Mapping[str, Any]], folder: RunFolder, console: Console, objective: Objective) -> None:
    """Print one line per trial, best first, the regions of the best one, and where it is."""
    table = Table(title=f"search {folder.name}")
    table.add_column("values")
    table.add_column("status")
    for column in ("epochs", SCORE_NAMES[objective], "patches/s", "cost"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(describe_values(row["values"]), row["status"], *_figures(row, objective))
    console.print(table)
    best = next((row for row in rows if "iou" in row), None)
    if best is not None:
        regions = figures_table("regions of the first trial", "region", "threshold", "IoU", "Dice")
        for region, threshold in best["threshold"].items():
            scores = threshold, best["iou"][region], best["dice"][region]
            regions.add_row(region, *(f"{value:.3f}" for value in scores))
        console.print(regions)
        choice = f"best trial and epoch: highest mean {SCORE_NAMES[objective]}"
        of_folds = "all cases, out of fold; thresholds and patches/s are means over the folds"
        cases = of_folds if has_folds(best) else "the validation cases"
        console.print(f"{choice} on {cases}. {SCORES_ARE}.", highlight=False)
    for row in rows:
        if "error" in row:
            why = f"failed ({describe_values(row['values'])}): {row['error']}"
            console.print(why, style="yellow", soft_wrap=True)
        elif "iou" in row and row.get("checkpoint", "") is None:
            why = f"no checkpoint of the trial with {describe_values(row['values'])} was written: it cannot be the best"
            console.print(why, style="yellow", soft_wrap=True)
    console.print(f"results {folder.uri}/{RESULTS}", soft_wrap=True, highlight=False)
    if any("iou" in row for row in rows):
        console.print(f"picture {folder.uri}/search.png", soft_wrap=True, highlight=False)
    if best is not None and has_folds(best):
        console.print(f"checkpoint {best['checkpoint']}", soft_wrap=True, highlight=False)
    elif folder.read(f"{BEST}/{RECORD}") is not None:
        console.print(f"checkpoint {folder.uri}/{BEST}", soft_wrap=True, highlight=False)


def _figures(row: Mapping[str, Any], objective: Objective) -> list[str]:
    cost = f"{row['cost']:.3f}" if row["cost"] is not None else ""
    if "iou" not in row:
        return ["", "", "", cost]
    return [str(row["epochs"]), f"{row[objective]['mean']:.4f}", f"{row['patches_per_second']:.1f}", cost]
