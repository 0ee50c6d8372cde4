"""What folds say together: each case once, means with intervals over subjects."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ray_jobs.evaluation.out_of_fold import DRAWS, mean_and_interval, sum_up_folds
from storage import InputError

REGIONS = ("WT", "TC")


def infos(**subject_and_grade: tuple[str, str | None]) -> list[Any]:
    return [
        SimpleNamespace(case_id=case_id, subject=subject, grade=grade, labelled=True)
        for case_id, (subject, grade) in subject_and_grade.items()
    ]


def fold(number: int, *, bad: dict[str, str] | None = None, **iou: float) -> dict[str, Any]:
    """The summary of a fold whose cases have this IoU in the first region, 1 in the other, and half of it at 0.5."""

    def scores(value: float) -> dict[str, dict[str, float]]:
        own = {"WT": value, "TC": 1.0, "mean": (value + 1) / 2}
        return {"iou": own, "dice": {name: 2 * each / (1 + each) for name, each in own.items()}}

    mean = scores(sum(iou.values()) / len(iou))
    part = {
        "cases": len(iou),
        "bad_cases": bad or {},
        **mean,
        "threshold": dict.fromkeys(REGIONS, 0.4),
        "by_case": {case_id: scores(value) for case_id, value in iou.items()},
        "by_case_at_half": {case_id: scores(value / 2) for case_id, value in iou.items()},
    }
    said = {"run": f"cv/fold-{number}", "checkpoint": "c", "throughput": {}, "rules": "plain", "objective": "iou"}
    return {**said, "config": {"thresholds": None}, "validation": part, "test": None}


COHORT = infos(a1=("a", "HGG"), a2=("a", "HGG"), b=("b", "HGG"), c=("c", "LGG"), d=("d", None))
FOLDS = {0: fold(0, a1=0.2, a2=0.4, d=0.9), 1: fold(1, b=0.6, c=0.8)}


def test_every_case_counts_once_and_keeps_its_folds_scores() -> None:
    found = sum_up_folds(FOLDS, COHORT)
    assert {case_id: own["fold"] for case_id, own in found["by_case"].items()} == {
        "a1": 0,
        "a2": 0,
        "b": 1,
        "c": 1,
        "d": 0,
    }
    assert found["by_case"]["c"]["iou"]["WT"] == 0.8 and found["by_case"]["c"]["subject"] == "c"
    every = found["out_of_fold"]
    assert (every["cases"], every["subjects"]) == (5, 4)
    # The mean over all cases, not over the folds' means (0.5 and 0.7).
    assert every["iou"]["WT"]["mean"] == pytest.approx(0.58)
    assert every["iou_at_half"]["WT"]["mean"] == pytest.approx(0.29)
    assert every["iou"]["WT"]["low"] < 0.58 < every["iou"]["WT"]["high"]
    assert every["iou"]["TC"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert [(each["fold"], each["cases"], each["iou"]["WT"]) for each in found["folds"]] == [(0, 3, 0.5), (1, 2, 0.7)]


def test_what_was_chosen_on_the_scored_cases_is_said() -> None:
    assert sum_up_folds(FOLDS, COHORT)["chosen_on_own_cases"] == ["epoch", "thresholds"]
    given = {number: {**each, "config": {"thresholds": [0.5, 0.5]}} for number, each in FOLDS.items()}
    assert sum_up_folds(given, COHORT)["chosen_on_own_cases"] == ["epoch"]


def test_grades_are_told_apart_where_they_are_known() -> None:
    found = sum_up_folds(FOLDS, COHORT)["by_grade"]
    assert {grade: part["cases"] for grade, part in found.items()} == {"HGG": 3, "LGG": 1}
    assert found["HGG"]["iou"]["WT"]["mean"] == pytest.approx(0.4)
    assert found["LGG"]["iou"]["WT"] == {"mean": 0.8, "low": None, "high": None}  # one subject says no interval
    assert sum_up_folds({0: fold(0, x=0.5), 1: fold(1, y=0.6)}, infos(x=("x", None), y=("y", None)))["by_grade"] == {}


def test_a_case_that_two_folds_scored_or_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"case b was scored by fold 0 and by fold 1: .*one store"):
        sum_up_folds({0: fold(0, a1=0.2, a2=0.4, b=0.9), 1: FOLDS[1]}, COHORT)
    with pytest.raises(InputError, match=r"2 labelled cases were scored by no fold, such as b:"):
        sum_up_folds({0: FOLDS[0]}, COHORT)
    bad = {0: FOLDS[0], 1: fold(1, bad={"c": "cannot be read"}, b=0.6)}
    assert sum_up_folds(bad, COHORT)["bad_cases"] == {"c": "cannot be read"}


def test_folds_of_earlier_versions_have_no_scores_at_one_half() -> None:
    old = copy.deepcopy(FOLDS)
    del old[0]["validation"]["by_case_at_half"]
    every = sum_up_folds(old, COHORT)["out_of_fold"]
    assert "iou" in every and "iou_at_half" not in every


def test_the_interval_is_that_of_subjects_drawn_one_by_one() -> None:
    chance = np.random.default_rng(5)
    subjects = [f"s{number}" for number in chance.integers(0, 12, size=30)]
    values_NK = chance.random((30, 2))
    mean_K, low_K, high_K = mean_and_interval(values_NK, subjects)
    assert mean_K == pytest.approx(values_NK.mean(axis=0))
    cases_of = {subject: [n for n, own in enumerate(subjects) if own == subject] for subject in subjects}
    drawn = [[n for s in chance.choice(sorted(cases_of), len(cases_of)) for n in cases_of[s]] for _ in range(DRAWS)]
    means_BK = np.array([values_NK[rows].mean(axis=0) for rows in drawn])
    for end_K, percentile in ((low_K, 2.5), (high_K, 97.5)):
        assert end_K == pytest.approx(np.percentile(means_BK, percentile, axis=0), abs=0.01)


def test_exams_of_one_subject_do_not_make_an_interval_narrower() -> None:
    values_NK = np.array([[0.1], [0.5], [0.9], [0.4]])
    subjects = ["a", "b", "c", "d"]
    once = mean_and_interval(values_NK, subjects)
    ten_times = mean_and_interval(values_NK.repeat(10, axis=0), [subject for subject in subjects for _ in range(10)])
    assert np.stack(ten_times) == pytest.approx(np.stack(once))
    as_if_others = mean_and_interval(values_NK.repeat(10, axis=0), [str(number) for number in range(40)])
    assert as_if_others[2] - as_if_others[1] < 0.5 * (once[2] - once[1])


def test_the_interval_is_the_same_every_time_and_in_any_order() -> None:
    values_NK, subjects = np.array([[0.1], [0.5], [0.9]]), ["a", "b", "c"]
    first = mean_and_interval(values_NK, subjects)
    assert np.stack(mean_and_interval(values_NK, subjects)).tolist() == np.stack(first).tolist()
    assert np.stack(mean_and_interval(values_NK[::-1], subjects[::-1])) == pytest.approx(np.stack(first))
