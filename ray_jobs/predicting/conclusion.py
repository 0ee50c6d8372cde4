"""The end of a command that does case by case: metrics.json, metrics.csv, report.html, the table, the exit status."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ray_jobs.evaluation.case_scores import encode_csv, encode_statistics, print_means
from ray_jobs.predicting.folder import CaseFolder
from ray_jobs.predicting.report_page import build_report
from scoring import RulesName
from storage import TASKS, Region
from storage.cases.notes import summarise_notes

REFUSED = 3
METRICS, TABLE, REPORT = "metrics.json", "metrics.csv", "report.html"


@dataclass(frozen=True, kw_only=True)
class Words:
    """What the command did to cases, what it says where there is none, and how its files of them are called."""

    done: str
    none: str
    files: str


def gather_notices(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was odd about cases, each once, with how many it is true of."""
    cases_of: dict[str, list[str]] = {}
    for record in records:
        for notice in record.get("notices", ()):
            cases_of.setdefault(notice, []).append(record["case_id"])
    return [
        f"{ids[0] if len(ids) == 1 else f'{len(ids)} cases such as {ids[0]}'}: {notice}"
        for notice, ids in cases_of.items()
    ]


def conclude(
    folder: CaseFolder,
    records: Sequence[Mapping[str, Any]],
    refused: Mapping[str, str],
    identity: Mapping[str, Any],
    console: Console,
    *,
    regions: Sequence[Region],
    rules: RulesName,
    notices: Sequence[str],
    words: Words,
) -> int:
    """Write and print what came of all cases, and what was odd about them; return the exit status."""
    notes = {record["case_id"]: record.get("notes", ()) for record in records}
    notices = [*notices, *gather_notices(records), *summarise_notes(notes)]
    for notice in notices:
        console.print(f"notice: {notice}", markup=False, style="yellow", soft_wrap=True)
    metrics = {
        "settings": identity,
        "rules": rules,
        "refused": refused,
        "notices": notices,
        **encode_statistics(records),
        "cases": records,
    }
    folder.write(METRICS, (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    folder.write(TABLE, encode_csv(records, rules))
    every = {region.name: region for task in TASKS.values() for region in task.regions}
    named = every | {region.name: region for region in regions}
    scored = dict.fromkeys(region for record in records for region in record["regions"])
    page = build_report(
        folder.uri.rsplit("/", 1)[-1],
        records,
        refused,
        identity,
        done=words.done,
        rules=rules,
        notices=notices,
        regions=[named[name] for name in scored or [region.name for region in regions]],
        read=folder.read,
    )
    folder.write(REPORT, page)
    if not records:
        console.print(f"{words.none}; the reasons are above", style="red")
        return REFUSED
    print_means(records, rules, console, title=f"{len(records)} cases {words.done}, {len(refused)} refused")
    for what, name in {words.files: "", "scores": TABLE, "report": REPORT}.items():
        console.print(f"{what:<13} {folder.uri}/{name}", markup=False, soft_wrap=True, highlight=False)
    return REFUSED if refused else 0
