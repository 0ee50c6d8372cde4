"""What a run decides at its end, what it announces, and what it says of both."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import (
    GRID,
    CaseEvidence,
    Decision,
    Evidence,
    RegionScores,
    ThresholdCounts,
    choose_decision,
    nested_decisions,
)
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.evaluation.decision_file import read_decision
from ray_jobs.evaluation.validation import Evaluation, curves_of
from ray_jobs.evaluation.verdict import decide
from storage.labels.tasks import GLIOMA_REGIONS

LABELS = tuple(region.labels for region in GLIOMA_REGIONS)
NAMES = tuple(region.name for region in GLIOMA_REGIONS)


def make_case(number: int, *, enhancing: bool) -> CaseEvidence:
    """A tumour with a core found to nine tenths, and 40 enhancing voxels, which are true or not."""
    rows = [
        [region, step, voxels, hits, *[around] * len(GRID)]
        for region, (voxels, hits, around) in enumerate(((900, 900, 0), (450, 450, 1), (40, 40 * enhancing, 1)))
        for step in range(len(GRID))
    ]
    return CaseEvidence(
        case_id=f"case-{number}",
        subject=f"subject-{number}",
        voxel_mm3=1.0,
        true_R=np.array([1000, 500, 50 * enhancing]),
        components_CX=np.array(rows),
    )


def evaluated(*cases: CaseEvidence) -> Evaluation:
    """The cases by the plain decision."""
    counts = ThresholdCounts(num_regions=3)
    counts.update("any", torch.zeros(3, 2), torch.ones(3, 2))
    evidence, plain = Evidence(cases, LABELS), Decision.plain(3)
    iou_NR, dice_NR = (evidence.scores(plain, kind) for kind in ("iou", "dice"))
    rows = [
        RegionScores(threshold=plain.thresholds, iou=tuple(iou), dice=tuple(dice), cases=1)
        for iou, dice in zip(iou_NR.tolist(), dice_NR.tolist(), strict=True)
    ]
    iou, dice = (tuple(values.mean(axis=0).tolist()) for values in (iou_NR, dice_NR))
    mean = RegionScores(threshold=plain.thresholds, iou=iou, dice=dice, cases=len(cases))
    return Evaluation(
        cases=len(cases),
        regions=GLIOMA_REGIONS,
        scores=mean,
        plain=mean,
        thresholds=dict.fromkeys(NAMES, 0.5),
        curves=curves_of(counts, NAMES),
        by_case={case.case_id: row for case, row in zip(evidence.cases, rows, strict=True)},
        subjects={case.case_id: case.subject for case in cases},
        evidence=evidence,
    )


def test_a_decision_is_announced_by_cases_that_did_not_choose_it() -> None:
    cases = evaluated(*(make_case(number, enhancing=number == 0) for number in range(9)))
    verdict = decide(cases)
    assert cases.evidence is not None and verdict.choice is not None
    assert verdict.decision == choose_decision(cases.evidence, "iou").decision != Decision.plain(3)
    validation = verdict.validation
    wanted = [
        cases.evidence.scores(decision, "iou")[number].mean()
        for number, decision in enumerate(nested_decisions(cases.evidence, "iou"))
    ]
    assert [scores.mean_iou for scores in validation.by_case.values()] == pytest.approx(wanted)
    assert validation.score == pytest.approx(np.mean(wanted)) and validation.score > cases.score
    assert validation.plain == cases.plain and validation.thresholds == dict.fromkeys(NAMES, 0.5)
    summary = verdict.summary()
    assert summary["empty_below_mm3"] == {"WT": 0.0, "TC": 0.0, "ET": 50.0} and summary["unseen"] == []
    (taken,) = summary["taken"]
    assert (taken["region"], taken["value"], taken["better"], taken["worse"]) == ("ET", 50.0, 8, 1)
    rule, trust = summary["said"]
    assert rule.startswith("Decision: ET empty below 50 mm3 in all; IoU +0.")
    assert "on cases that did not choose it" in rule and rule.endswith("with 95% confidence (8 better, 1 worse).")
    low, high = validation.interval or (0.0, 0.0)
    assert low < validation.score < high
    assert f"9 validation subjects say of many more such: mean IoU {low:.3f} to {high:.3f}" in trust


@pytest.mark.parametrize(
    ("subjects", "said"),
    [
        (1, ["Decision: plain (0.5, all is kept); nothing is chosen by fewer than 3 subjects.", "No validation case"]),
        (3, ["Decision: plain (0.5, all is kept); no rule beat it by more than chance on 3 subjects."]),
    ],
)
def test_few_cases_choose_nothing_and_that_is_said(subjects: int, said: list[str]) -> None:
    cases = evaluated(*(make_case(number, enhancing=number > 0) for number in range(subjects)))
    verdict = decide(cases)
    assert verdict.decision == Decision.plain(3) and verdict.validation.scores == pytest.approx(cases.scores)
    lines = verdict.summary()["said"]
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=False))
    if subjects == 1:
        assert lines[1] == "No validation case has ET: there 0.5 stays, and nothing is left out."
        assert lines[2].startswith("One validation subject says nothing") and verdict.summary()["unseen"] == ["ET"]


def test_thresholds_that_were_given_stand() -> None:
    cases = dataclasses.replace(evaluated(make_case(0, enhancing=True)), evidence=None, thresholds_given=True)
    given = dataclasses.replace(cases, thresholds={"WT": 0.3, "TC": 0.457, "ET": 0.5})
    verdict = decide(given)
    assert verdict.decision == Decision(thresholds=(0.3, 0.457, 0.5)) and verdict.validation is given
    assert verdict.score(cases) is cases


@pytest.mark.slow
def test_a_run_saves_its_decision_with_the_best_weights(trained: Any) -> None:
    checkpoint = Path(trained.result["checkpoint"])
    evidence = Evidence.decode((checkpoint / "evidence.npz").read_bytes())
    assert [case.case_id for case in evidence.cases] == sorted(trained.plan.splits.validation)
    store = CheckpointStore(str(trained.folder))
    best = store.best()
    assert best is not None
    decision = read_decision(store.open(best))
    assert decision is not None and decision.thresholds == tuple(trained.result["decision"]["thresholds"].values())
    validation = trained.result["validation"]
    plain = evidence.scores(Decision.plain(3), "iou").mean(axis=0)
    assert list(validation["plain"]["iou"].values())[:3] == pytest.approx(plain.tolist())
    assert trained.result["decision"]["said"][0].startswith("Decision: plain")  # of two cases
