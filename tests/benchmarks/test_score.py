"""The score benchmark runs both programs on the same pairs and finds a number that differs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cost import Cost
from benchmarks.score import as_rows, bend, run
from benchmarks.settings import ScoreBenchmark
from storage import InputError

# Stands for the program's table: our own numbers under its names, one of them changed.
PARSE = """#!{python}
import json, sys
from pathlib import Path
from benchmarks.peer_brats_evaluate import OUR_NAMES
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
ours = json.loads((Path(given["--json_path"]).parent / "ours" / "metrics.json").read_text())["cases"]
theirs = {{ours.format(""): name for name, ours in OUR_NAMES.items()}}
lines = []
for record in ours:
    row = {{
        f"{{theirs[name]}}_{{region.lower()}}": value
        for region, scores in record["regions"].items()
        for name, value in scores.items()
        if name in theirs
    }}
    values = ["nan" if value is None else str(value) for value in row.values()]
    lines.append(",".join([f"{{record['case_id']}}.nii.gz", *values]))
first = lines[0].split(",")
first[1] = str(float(first[1]) + 1e-9)
Path(given["--output_csv_path"]).write_text("\\n".join([",".join(["subject_id", *row]), ",".join(first), *lines[1:]]))
"""


@pytest.mark.processes
@pytest.mark.slow
def test_a_number_that_differs_is_found(
    phantom_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    program, parse = tmp_path / "brats-evaluate", tmp_path / "brats-parse-metrics"
    program.write_text("#!/bin/sh\n")
    parse.write_text(PARSE.format(python=sys.executable))
    for script in (program, parse):
        script.chmod(0o755)
    figures = tmp_path / "figures.json"
    run(ScoreBenchmark(source=phantom_source, cases=2, rounds=1, program=program, json=figures))
    record = json.loads(figures.read_text())
    assert "2 cases of 120x120x78: of 180 numbers 1 differ" in record["title"]
    assert "brats-evaluate says" in capsys.readouterr().out
    assert [row["what"] for row in record["rows"]] == ["brats-evaluate 0.0.10", "ray_jobs/score.py"]
    assert record["rows"][1]["CPU s, 2 cases"] > 0.1


def test_a_further_case_costs_what_the_first_did_not() -> None:
    theirs = [(Cost(cpu=3, wall=9), Cost(cpu=9, wall=9)), (Cost(cpu=2, wall=9), Cost(cpu=8, wall=9))]
    ours = [(Cost(cpu=1, wall=9), Cost(cpu=2, wall=9))]
    rows = as_rows({"theirs": theirs, "ours": ours}, cases=3)
    assert [row["CPU s, a further case"] for row in rows] == [3.0, 0.5]
    assert rows[1]["times faster, a further case"] == 6.0
    assert rows[1]["times faster, 1 case"] == 2.0


def test_a_bent_map_is_like_the_map_but_not_the_map() -> None:
    label = np.zeros((40, 50, 60), dtype=np.uint8)
    label[10:30, 10:40, 10:50], label[15:25, 20:30, 20:40] = 2, 3
    bent = bend(label, np.random.default_rng(0))
    assert set(np.unique(bent)) == {0, 2, 3}
    assert 0.8 < 2 * np.count_nonzero((bent > 0) & (label > 0)) / np.count_nonzero(bent) / 2 <= 1
    assert (bent != label).any()
    np.testing.assert_array_equal(bent, bend(label, np.random.default_rng(0)))


def test_without_the_program_it_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"make \.venv-score/\.installed"):
        run(ScoreBenchmark(program=tmp_path / "none"))
    (tmp_path / "program").touch()
    with pytest.raises(InputError, match=r"got msd"):
        run(ScoreBenchmark(program=tmp_path / "program", task="msd"))
