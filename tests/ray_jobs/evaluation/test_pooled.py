"""Folds decide together, on cases of which each was predicted by a network that never saw it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.decisions import predict_held_out
from models import GRID, CaseEvidence, Decision, Evidence, nested_decisions
from ray_jobs.checkpoints.checkpoint import Checkpoint
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.evaluation.decision_file import read_decision
from ray_jobs.evaluation.pooled import decide_together

NAMES, LABELS = ("WT", "TC", "ET"), ((1, 2, 3), (1, 3), (3,))


def make_case(number: int) -> CaseEvidence:
    """A tumour without an enhancing part, of which 40 voxels are painted in; of the first case they are true."""
    voxels = ((900, 900, 0), (450, 450, 1), (40, 40 * (number == 0), 1))
    rows = [
        [region, step, count, hits, *[around] * len(GRID)]
        for region, (count, hits, around) in enumerate(voxels)
        for step in range(len(GRID))
    ]
    true_R = np.array([1000, 500, 50 * (number == 0)])
    return CaseEvidence(
        case_id=f"{number}", subject=f"{number}", voxel_mm3=1.0, true_R=true_R, components_CX=np.array(rows)
    )


@pytest.fixture
def folds(make_checkpoint: Callable[..., str]) -> list[Checkpoint]:
    found = [find_checkpoint(make_checkpoint(f"fold-{fold}", seed=fold)) for fold in range(3)]
    for fold, checkpoint in enumerate(found):
        cases = [make_case(number) for number in range(2 * fold, 2 * fold + 2)]
        checkpoint.put("evidence.npz", Evidence(cases, LABELS).encode())
    return found


def test_all_folds_get_what_all_cases_choose(folds: list[Checkpoint]) -> None:
    together = decide_together(folds, NAMES, "iou")
    assert together is not None
    pooled = Evidence([make_case(number) for number in range(6)], LABELS)
    wanted = [
        pooled.scores(decision, "iou")[number].mean() for number, decision in enumerate(nested_decisions(pooled, "iou"))
    ]
    assert [scores["iou"]["mean"] for scores in together.by_case.values()] == pytest.approx(wanted)
    assert together.decision.empty_below == (0.0, 0.0, 50.0)
    together.save(folds, NAMES)
    assert {read_decision(checkpoint) for checkpoint in folds} == {
        Decision(thresholds=(0.5,) * 3, smallest_mm3=(0.0,) * 3, empty_below_mm3=(0.0, 0.0, 50.0))
    }
    assert together.summary["said"][0].startswith("Decision: ET empty below 50 mm3 in all; IoU +")


def test_folds_with_given_thresholds_decide_nothing(make_checkpoint: Callable[..., str]) -> None:
    assert decide_together([find_checkpoint(make_checkpoint("a", seed=1))], NAMES, "iou") is None


@pytest.mark.slow
def test_what_a_run_held_out_is_predicted_for_benchmarks(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = shutil.copytree(trained.folder, tmp_path / "run")
    (folder / "summary.json").write_text(json.dumps({"store": trained.plan.store}))
    evidence = predict_held_out(str(folder))
    splits = trained.plan.splits
    assert sorted(case.case_id for case in evidence.cases) == sorted([*splits.validation, *splits.test])
    scores_NR = evidence.scores(Decision.plain(len(NAMES)), "iou")
    of_test = [number for number, case in enumerate(evidence.cases) if case.case_id in splits.test]
    said = trained.result["test"]["iou"]  # two validation cases choose nothing: it is by the plain decision
    np.testing.assert_allclose(scores_NR[of_test].mean(axis=0), [said[name] for name in NAMES], atol=1e-6)
