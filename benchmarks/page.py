"""BENCHMARKS.md, written from the records: `python -m benchmarks page`. Nobody types a figure into it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest.table import accuracy_rows, missing_scans_rows, parity_rows, read_records, trial_rows
from benchmarks.report import as_text
from benchmarks.settings import Page

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).with_name("records")
PAGE = ROOT / "BENCHMARKS.md"
TEXT = Path(__file__).with_name("page.md")  # all but the figures: {{NAME}} is where a record goes


RECORD = re.compile(r"^{{([\w-]+)}}\n", flags=re.M)
CONTEST = re.compile(r"^{{([\w-]+)/}}\n", flags=re.M)
"""A folder of records, of which some may not be there yet."""
TABLES = {
    "accuracy": accuracy_rows,
    "laptop-trials": trial_rows,
    "parity": parity_rows,
    "missing-scans": missing_scans_rows,
}


def recorded() -> list[str]:
    """Return the names of the records that the page shows."""
    return RECORD.findall(TEXT.read_text())


def render(records: Path = RECORDS) -> str:
    """Return the page: its text, each record in its place."""
    text = CONTEST.sub(lambda found: render_contest(records / found[1]), TEXT.read_text())
    return RECORD.sub(lambda found: render_file(records / f"{found[1]}.json"), text)


def render_file(record: Path) -> str:
    """Return the table of a record, or that there is none yet and what makes it."""
    if not record.exists():
        return "Not measured yet: `make bench` does.\n"
    return render_record(json.loads(record.read_text()))


def render_contest(folder: Path) -> str:
    """Return the tables of the runs that are done, each with where the newest of them comes from."""
    runs = read_records(folder)
    tables = TABLES[folder.name](runs)
    if not tables:
        return "Not measured yet.\n"
    newest = max(runs, key=lambda run: str(run["date"]))
    return "\n".join(render_record({**newest, "title": title, "rows": rows}) for title, rows in tables.items())


def render_record(record: Mapping[str, Any]) -> str:
    """Return one record: title, table, and where it comes from."""
    rows: Sequence[Mapping[str, Any]] = record["rows"]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    numbers = [not isinstance(rows[0].get(column, ""), str) for column in columns]
    lines = [
        f"**{record['title']}**\n",
        _line(columns),
        _line(["---:" if number else "---" for number in numbers]),
        *(_line([as_text(row.get(column, "")) for column in columns]) for row in rows),
        f"\n`{record['command']}` · {record['machine']} · {record['commit'] or 'no commit'} · {record['date']}\n",
    ]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def run(_: Page) -> None:
    """Write the page anew."""
    write_page()


def write_page() -> None:
    """Write what the records say."""
    PAGE.write_text(render())
