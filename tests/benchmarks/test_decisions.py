"""Draws of stored evidence: what is chosen on some is scored on the others."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.decisions import highest_thresholds, join_folds, read_evidence
from models import CaseEvidence, Decision, Evidence, nested_decisions
from models.evidence import GRID
from storage import InputError


def evidence_of(numbers: range) -> Evidence:
    """Cases of one region that gains by a higher threshold, and has a false piece in every second one."""
    cases = []
    for number in numbers:
        false = [[0, step, 80, 0, *[0] * len(GRID)] for step in range(len(GRID)) if number % 2]
        rows = [[0, step, 1000, 700 + 20 * step, *[0] * len(GRID)] for step in range(len(GRID))]
        table = np.array(sorted([*rows, *false], key=lambda row: row[1]), np.int64)
        true = np.array([1000], np.int64)
        cases.append(
            CaseEvidence(case_id=f"{number}", subject=f"{number}", voxel_mm3=1.0, true_R=true, components_CX=table)
        )
    return Evidence(cases, ((1,),))


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    for fold in range(2):
        folder = tmp_path / f"fold-{fold}" / "checkpoint_epoch_0001"
        folder.mkdir(parents=True)
        (folder / "evidence.npz").write_bytes(evidence_of(range(6 * fold, 6 * fold + 6)).encode())
    return tmp_path


def test_draws_are_scored_on_the_cases_that_were_not_drawn(
    folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.report.git_commit", lambda: None)  # starts a process
    record = tmp_path / "record.json"
    arguments = ["decisions", "--evidence", str(folds / "fold-0"), str(folds / "fold-1"), "--json", str(record)]
    assert main([*arguments, "--chosen-on", "2", "8", "--draws", "20"]) == 0
    found = json.loads(record.read_text())
    rows = {(row["thresholds and rules by"], row["chosen on"]): row for row in found["rows"]}
    assert rows["beyond chance", 2]["gain"] == 0 and rows["beyond chance", 2]["other than plain"] == "0%"
    assert rows["beyond chance", 8]["gain"] > rows["highest score", 8]["gain"] > 0.01
    assert found["title"].startswith("decisions on 12 cases of 12 subjects, iou by the plain decision 0.5")
    plain, others, difference = found["by_region"]
    assert list(plain) == ["decision", "labels 1", "mean"] and plain["mean"] == plain["labels 1"]
    evidence = join_folds(read_evidence([folds]))
    own_N = evidence.scores(Decision.plain(1), "iou")[:, 0]
    gain_N = np.array([evidence.scores(each, "iou")[n, 0] for n, each in enumerate(nested_decisions(evidence, "iou"))])
    assert plain["mean"].startswith(f"{own_N.mean():.3f} (") and others["mean"].startswith(f"{gain_N.mean():.3f} (")
    low, high = map(float, difference["mean"].partition("(")[2].rstrip(")").split(" to "))
    assert 0 < low < round((gain_N - own_N).mean(), 3) < high and difference["mean"].startswith("+")
    with pytest.raises(InputError, match="--chosen-on must lie between 1 and 11, got 12"):
        main([*arguments, "--chosen-on", "12"])


def test_the_highest_threshold_is_the_nearest_of_equals() -> None:
    assert highest_thresholds(evidence_of(range(4)), "iou", [0, 1]).thresholds == (0.7,)


def test_what_is_no_cross_validation_is_refused(folds: Path, tmp_path: Path) -> None:
    assert len(join_folds(read_evidence([folds])).cases) == 12
    with pytest.raises(InputError, match="found 0 in two"):
        join_folds(read_evidence([folds, folds / "fold-0" / "checkpoint_epoch_0001" / ".." / "checkpoint_epoch_0001"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"below .*empty, found none: give finished runs"):
        read_evidence([folds, tmp_path / "empty"])
    with pytest.raises(InputError, match="wanted --evidence or --held-out"):
        main(["decisions"])
