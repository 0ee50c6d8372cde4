"""BENCHMARKS.md says what the records say, and each record says where it comes from."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.page import PAGE, RECORDS, recorded, render, render_record

NAMES = sorted(file.stem for file in RECORDS.glob("*.json"))


def test_the_page_is_what_the_records_say() -> None:
    assert PAGE.read_text() == render(), "run `python -m benchmarks page`"


def test_no_record_is_left_over_and_none_is_missing() -> None:
    assert set(NAMES) == set(recorded())


def test_what_was_not_measured_yet_says_what_would(tmp_path: Path) -> None:
    assert "Not measured yet: `make bench` does." in render(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_where_it_comes_from(name: str) -> None:
    record = json.loads((RECORDS / f"{name}.json").read_text())
    assert record["command"].startswith(("python -m benchmarks ", "python ray_jobs/train.py "))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert record["machine"] and record["commit"] and record["rows"]
    assert "/work/" not in record["command"] and "/home/" not in record["command"]


def test_a_table_has_a_column_for_what_any_row_has(tmp_path: Path) -> None:
    record = {"title": "T", "command": "c", "machine": "m", "commit": "a1", "date": "2026-11-25"}
    page = render_record(record | {"rows": [{"what": "a", "s": 0.12345}, {"what": "b|c", "more": 2}]})
    assert "| what | s | more |" in page and "| a | 0.1235 |  |" in page and "| b/c |  | 2 |" in page
    assert "`c` · m · a1 · 2026-11-25" in page
