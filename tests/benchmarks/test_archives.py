"""The archives benchmark measures what it says, once through on one phantom case."""

import json
from pathlib import Path

import pytest

from benchmarks.archives import KINDS, run
from benchmarks.settings import ArchivesBenchmark
from storage import InputError


@pytest.mark.processes
def test_a_row_for_each_archive_and_the_same_figures_as_json(phantom_source: Path, tmp_path: Path) -> None:
    run(ArchivesBenchmark(source=phantom_source, cases=1, json=tmp_path / "figures.json"))
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["archive"] for row in rows] == list(KINDS)
    for row in rows:
        both = row["unpacking, CPU-s per case"] + row["then converting, CPU-s per case"]
        assert row["unpacking, CPU-s per case"] > 0
        assert row["as it is / both"] == pytest.approx(row["as it is, CPU-s per case"] / both)


def test_no_cases_are_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "A_t1.nii.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="wanted BraTS cases"):
        run(ArchivesBenchmark(source=tmp_path))
