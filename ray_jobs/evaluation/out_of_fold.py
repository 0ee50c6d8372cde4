"""What the folds of a cross-validation say together: every case scored once, by the network that never saw it.

Letters in names: N cases, S subjects, K scores, B draws.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import InputError
from storage.cases.info import CaseInfo

DRAWS, SEED, PERCENTILES = 5000, 0, (2.5, 97.5)
PLAIN = ("iou", "dice")
AT_HALF = ("iou_at_half", "dice_at_half")

# Kind of score → region, or their mean → value.
Scores = dict[str, dict[str, float]]


def scores_of_cases(summary: Mapping[str, Any]) -> dict[str, Scores]:
    """Return the scores of each case that a fold's summary.json has of its end: as it chose, and at one half.

    This and the next are all that knows how a summary says it. Those of earlier versions have none at one half.
    """
    chosen, at_half = summary["validation"]["by_case"], summary["validation"].get("by_case_at_half", {})
    return {
        case_id: {**own, **{f"{kind}_at_half": values for kind, values in at_half.get(case_id, {}).items()}}
        for case_id, own in chosen.items()
    }


def chosen_on_own_cases(summary: Mapping[str, Any]) -> list[str]:
    """Return what a fold chose by the scores of the very cases that it scores."""
    chosen_by_others = summary["config"]["thresholds"] is not None or "decision" in summary
    return ["epoch"] if chosen_by_others else ["epoch", "thresholds"]


def sum_up_folds(
    summaries: Mapping[int, Mapping[str, Any]],
    infos: Iterable[CaseInfo],
    decided: Mapping[str, Scores] | None = None,
) -> dict[str, Any]:
    """Return what summary.json of the whole says, from those of all its folds and the store's cases.

    `decided` are each case's scores by what all folds decide together, in the place of its own fold's.
    Raises InputError where a labelled case is not in exactly one fold.
    """
    labelled = {info.case_id: info for info in infos if info.labelled}
    by_case: dict[str, dict[str, Any]] = {}
    bad_cases: dict[str, str] = {}
    for fold, summary in summaries.items():
        own = scores_of_cases(summary)
        own = {case_id: {**scores, **(decided or {}).get(case_id, {})} for case_id, scores in own.items()}
        if twice := sorted(own.keys() & by_case.keys()):
            raise InputError(
                f"case {twice[0]} was scored by fold {by_case[twice[0]]['fold']} and by fold {fold}: copies of the "
                "store dealt the cases out differently; train all folds on one store, under another --name"
            )
        by_case |= {case_id: {"fold": fold, **scores} for case_id, scores in own.items()}
        bad_cases |= summary["validation"]["bad_cases"]
    if missing := sorted(labelled.keys() - by_case.keys() - bad_cases.keys()):
        raise InputError(
            f"{len(missing)} labelled cases were scored by no fold, such as {missing[0]}: the store has grown or was "
            "another; give another --name to train anew"
        )
    grades = sorted({info.grade for case_id, info in labelled.items() if info.grade and case_id in by_case})
    some = next(iter(summaries.values()))
    return {
        "rules": some["rules"],
        "objective": some["objective"],
        "chosen_on_own_cases": chosen_on_own_cases(some),
        "folds": [describe_fold(fold, summary) for fold, summary in summaries.items()],
        "out_of_fold": with_intervals(by_case, labelled),
        "by_grade": {
            grade: with_intervals({key: own for key, own in by_case.items() if labelled[key].grade == grade}, labelled)
            for grade in grades
        },
        "bad_cases": bad_cases,
        "by_case": {
            case_id: {"subject": labelled[case_id].subject, "grade": labelled[case_id].grade, **own}
            for case_id, own in sorted(by_case.items())
        },
    }


def describe_fold(fold: int, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the summary of the whole says of one fold."""
    own = summary["validation"]
    return {
        "fold": fold,
        **{key: summary[key] for key in ("run", "checkpoint", "throughput")},
        **{key: own[key] for key in ("cases", "iou", "dice", "threshold")},
    }


def with_intervals(by_case: Mapping[str, Mapping[str, Any]], infos: Mapping[str, CaseInfo]) -> dict[str, Any]:
    """Return the mean over these cases of every kind of score and region, each with its 95 % interval."""
    every = list(by_case.values())
    kinds = [kind for kind in (*PLAIN, *AT_HALF) if all(kind in own for own in every)]
    columns = [(kind, region) for kind in kinds for region in every[0][kind]]
    values_NK = np.array([[own[kind][region] for kind, region in columns] for own in every])
    subjects = [infos[case_id].subject for case_id in by_case]
    scores: dict[str, Any] = {"cases": len(every), "subjects": len(set(subjects)), **{kind: {} for kind in kinds}}
    mean_K, *ends = mean_and_interval(values_NK, subjects)
    low_K, high_K = (end_K.tolist() if scores["subjects"] > 1 else [None] * len(columns) for end_K in ends)
    for (kind, region), mean, low, high in zip(columns, mean_K.tolist(), low_K, high_K, strict=True):
        scores[kind][region] = {"mean": mean, "low": low, "high": high}
    return scores


def mean_and_interval(
    values_NK: NDArray[np.float64], subjects: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over cases of each score, and the lower and upper end of its 95 % interval.

    By the percentile bootstrap (Efron 1979) over subjects: as many as there are, drawn with replacement, each with all
    of its cases, since exams of one subject are alike. The draws are the same every time.
    """
    _, subject_N = np.unique(subjects, return_inverse=True)
    cases_S = np.bincount(subject_N)
    sums_SK = np.zeros((len(cases_S), values_NK.shape[1]))
    np.add.at(sums_SK, subject_N, values_NK)
    drawn_BS = np.random.default_rng(SEED).multinomial(len(cases_S), 1 / len(cases_S) * np.ones(len(cases_S)), DRAWS)
    means_BK: NDArray[np.float64] = (drawn_BS @ sums_SK) / (drawn_BS @ cases_S)[:, None]
    low_K, high_K = np.percentile(means_BK, PERCENTILES, axis=0)
    return values_NK.mean(axis=0), low_K, high_K
