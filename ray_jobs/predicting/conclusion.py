"""A command that does case by case, and its end: metrics.json, metrics.csv, report.html, the table, the exit status."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ray_jobs.evaluation.case_scores import encode_csv, encode_statistics, print_means
from ray_jobs.predicting.case_by_case import CasesToDo, OutcomesOf, Words, do_cases
from ray_jobs.predicting.folder import CaseFolder
from ray_jobs.predicting.report_page import build_report
from ray_jobs.predicting.viewer import LIBRARY, NIIVUE, copies_of
from ray_jobs.settings.exit_status import REFUSED
from storage import TASKS
from storage.cases.notes import summarise_notes

METRICS, TABLE, REPORT = "metrics.json", "metrics.csv", "report.html"


def do_and_report(
    outcomes_of: OutcomesOf,
    cases: CasesToDo,
    folder: CaseFolder,
    console: Console,
    *,
    words: Words,
    said: str,
    workers: int,
) -> int:
    """Do every case that is still to do, as the folder's only writer, and then the report; return the exit status."""
    folder.claim(cases.identity)
    with folder.only_writer():
        records, refused = do_cases(outcomes_of, cases, folder, console, doing=words.doing, said=said, workers=workers)
        return conclude(cases, records, refused, folder, console, words)


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
    cases: CasesToDo,
    records: Sequence[Mapping[str, Any]],
    refused: Mapping[str, str],
    folder: CaseFolder,
    console: Console,
    words: Words,
) -> int:
    """Write and print what came of all cases, and what was odd about them; return the exit status."""
    notes = {record["case_id"]: record.get("notes", ()) for record in records}
    notices = [*cases.notices, *gather_notices(records), *summarise_notes(notes)]
    for notice in notices:
        console.print(f"notice: {notice}", style="yellow", soft_wrap=True)
    metrics = {
        "settings": cases.identity,
        "rules": cases.rules,
        "refused": refused,
        "notices": notices,
        **encode_statistics(records),
        "cases": records,
    }
    folder.write(METRICS, (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    folder.write(TABLE, encode_csv(records, cases.rules))
    every = {region.name: region for task in TASKS.values() for region in task.regions}
    named = every | {region.name: region for region in cases.regions}
    scored = dict.fromkeys(region for record in records for region in record["regions"])
    page = build_report(
        folder.uri.rsplit("/", 1)[-1],
        records,
        refused,
        cases.identity,
        done=words.done,
        rules=cases.rules,
        notices=notices,
        regions=[named[name] for name in scored or [region.name for region in cases.regions]],
        read=folder.read,
    )
    if copies_of(records):
        folder.write(LIBRARY, NIIVUE.read_bytes())
    folder.write(REPORT, page)
    if not records:
        console.print(f"{words.none}; the reasons are above", style="red")
        return REFUSED
    print_means(records, cases.rules, console, title=f"{len(records)} cases {words.done}, {len(refused)} refused")
    for what, name in {words.files: "", "scores": TABLE, "report": REPORT}.items():
        console.print(f"{what:<13} {folder.uri}/{name}", soft_wrap=True, highlight=False)
    return REFUSED if refused else 0
