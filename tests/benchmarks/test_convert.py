"""The conversion benchmark measures what it says, once through on one phantom case."""

import json
from pathlib import Path

import pytest

from benchmarks.convert import OURS, run
from benchmarks.settings import ConvertBenchmark
from storage import InputError, find_cases


@pytest.mark.processes
def test_one_row_for_ours_and_the_same_figures_as_json(
    phantom_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(ConvertBenchmark(source=phantom_source, cases=1, peer_python=None, json=tmp_path / "figures.json"))
    row, command = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert row["what"] == OURS
    assert row["objects per case"] == 7
    source_bytes = sum(path.stat().st_size for path in find_cases(phantom_source).cases[0].files.values())
    assert 0 < row["MB per case"] < 2 * source_bytes / 1e6
    assert row["CPU-s per case"] > 0
    assert row["peak MB"] > 50
    assert command["cases"] == len(find_cases(phantom_source).cases) > 1  # all of them, whatever is measured above
    assert min(command["wall-s per case"], command["CPU-s per case"]) > 0
    assert "Conversion of 1 cases" in capsys.readouterr().out


@pytest.mark.processes
def test_no_cases_and_a_python_without_the_peer_are_input_errors(phantom_source: Path, tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "A_t1.nii.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="wanted BraTS cases"):
        run(ConvertBenchmark(source=tmp_path))
    fails = tmp_path / "python"
    fails.write_text("#!/bin/sh\necho 'No module named nnunetv2' >&2\nexit 1\n")
    fails.chmod(0o755)
    with pytest.raises(InputError, match="No module named nnunetv2"):
        run(ConvertBenchmark(source=phantom_source, cases=1, peer_python=fails))
