"""The end of a cross-validation: tables for people."""

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from models import Objective
from ray_jobs.settings.console import figures_table
from ray_jobs.settings.objective import SCORE_NAMES, SCORES_ARE
from ray_jobs.watching.summary import describe_costs

INTERVAL = "95 %"


def print_folds(summary: Mapping[str, Any], console: Console) -> None:
    """Print a table per fold, then the scores of all cases with their intervals, then those by grade."""
    objective: Objective = summary["objective"]
    folds, every = summary["folds"], summary["out_of_fold"]
    table = figures_table(
        f"run {summary['run']}: {SCORE_NAMES[objective]} of each fold", "fold", "cases", *every[objective]
    )
    for fold in folds:
        table.add_row(str(fold["fold"]), str(fold["cases"]), *(f"{value:.3f}" for value in fold[objective].values()))
    console.print(table)
    for title, ending in (
        (f"all {every['cases']} cases of {every['subjects']} subjects, out of fold", ""),
        ("the same with all thresholds 0.5", "_at_half"),
    ):
        if shown := {
            name: every[f"{kind}{ending}"] for kind, name in SCORE_NAMES.items() if f"{kind}{ending}" in every
        }:
            _print_intervals(title, shown, console)
    if summary["by_grade"]:
        shown = {f"{grade} ({part['cases']})": part[objective] for grade, part in summary["by_grade"].items()}
        _print_intervals(f"{SCORE_NAMES[objective]} by grade (cases), out of fold", shown, console)
    chosen = summary["chosen_on_own_cases"]
    said, at_half = " and ".join(chosen), "; at 0.5 only the epoch was" if "thresholds" in chosen else ""
    console.print(
        f"Each case is scored once, by the fold that did not train on it. Every fold chose its {said} by "
        f"{SCORE_NAMES[objective]} on the very cases that it scores, so that all is a little too good{at_half}. "
        f"{INTERVAL}: bootstrap over subjects. {SCORES_ARE}."
    )
    for line in summary.get("decision", {}).get("said", ()):
        console.print(line, highlight=False)
    for case_id, reason in summary["bad_cases"].items():
        console.print(f"left out {case_id}: {reason}", style="yellow", soft_wrap=True)
    for line in describe_costs(summary):
        console.print(line, soft_wrap=True, highlight=False)
    for what, place in {"store": summary["store"], "run folder": summary["folder"]}.items():
        console.print(f"{what:<11} {place}", soft_wrap=True, highlight=False)
    command = f"predict.py --checkpoint {shlex.quote(summary['folder'])}"
    console.print(f"{command} averages the {len(folds)} networks", soft_wrap=True)


def _print_intervals(
    title: str, scores: Mapping[str, Mapping[str, Mapping[str, float | None]]], console: Console
) -> None:
    """A row for each region; for each kind of score its mean and interval."""
    table = figures_table(title, "region", *(column for name in scores for column in (name, INTERVAL)))
    for region in next(iter(scores.values())):
        figures = [
            text
            for values in scores.values()
            for text in (f"{values[region]['mean']:.3f}", format_interval(values[region]))
        ]
        table.add_row(region, *figures)
    console.print(table)


def format_interval(score: Mapping[str, float | None]) -> str:
    """Return an interval; of a single subject there is none."""
    return "" if score["low"] is None else f"{score['low']:.3f}–{score['high']:.3f}"
