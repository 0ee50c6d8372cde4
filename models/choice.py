"""Which decision is taken on the evidence of cases, and what it can be trusted to score on others.

The plain decision (0.5, all is kept) stands until something beats it by more than chance. Four kinds of rules are
tried in turn, each with a few values for one region or all; of a kind every subject is scored by the value that is best
for the other subjects, so no gain is of a case that chose. A kind is taken where the mean of these gains over subjects
is above 0 with `CONFIDENCE` (one-sided, Student's t), the one with the highest mean first, and then the rest is
tried beside it. With few subjects hardly anything is.

`nested_scores` then scores each subject by the decision that the others would have chosen.

Letters in names: N cases, S subjects, R region, V values that are tried.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.config import Objective
from models.decision import PLAIN_THRESHOLD, Decision
from models.evidence import GRID, Evidence

CONFIDENCE = 0.95
FEWEST_SUBJECTS = 3  # of which the others are at least two when one is left out
SIZES_MM3 = (50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A rule that was taken: its kind, for which regions (None: all), with which value, and by what evidence."""

    kind: str
    region: int | None
    value: float | None
    gain: float
    """Mean over subjects of what it adds to the score, each by the value that is best for the others."""
    at_least: float
    """What that mean is above with `CONFIDENCE`."""
    better: int
    """Of so many subjects the score rose, of `worse` it fell."""
    worse: int


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A decision, the rules in it that are not plain, and the regions that no case has, whose rules stay plain."""

    decision: Decision
    taken: tuple[Taken, ...]
    unseen: tuple[int, ...]


@dataclass(frozen=True)
class _Candidate:
    region: int | None
    value: float | None
    decision: Decision


def choose_decision(evidence: Evidence, objective: Objective, cases: Sequence[int] | None = None) -> Choice:
    """Choose on these cases of the evidence (their numbers), by default on all."""
    chosen = np.arange(len(evidence.cases)) if cases is None else np.asarray(cases)
    seen = np.flatnonzero(evidence.true_NR[chosen].any(axis=0))
    decision, taken = Decision.plain(len(evidence.labels)), list[Taken]()
    subjects_S, subject_N = np.unique(evidence.subject_N[chosen], return_inverse=True)

    def mean_by_subject(decision: Decision) -> NDArray[np.float64]:
        """Of the regions that some case has: nothing can be learnt of others but to predict them nowhere."""
        score_N = evidence.scores(decision, objective)[chosen][:, seen].mean(axis=1)
        score_S: NDArray[np.float64] = np.bincount(subject_N, score_N) / np.bincount(subject_N)
        return score_S

    while len(subjects_S) >= FEWEST_SUBJECTS and len(seen):
        before_S, best, best_candidate = mean_by_subject(decision), None, None
        for kind, candidates in _candidates(decision, [int(region) for region in seen]):
            gain_VS = np.stack([mean_by_subject(candidate.decision) - before_S for candidate in candidates])
            found = _test(kind, candidates, gain_VS)
            if found is not None and (best is None or found[0].gain > best.gain):
                best, best_candidate = found
        if best is None or best_candidate is None:
            break
        decision = best_candidate.decision
        taken.append(best)
    unseen = tuple(region for region in range(len(evidence.labels)) if region not in seen)
    return Choice(decision=decision, taken=tuple(taken), unseen=unseen)


def nested_decisions(evidence: Evidence, objective: Objective) -> list[Decision]:
    """For each case the decision that the other subjects' cases choose; plain where there is no other."""
    plain, of_subject = Decision.plain(len(evidence.labels)), []
    for subject in range(len(evidence.subjects)):
        others = np.flatnonzero(evidence.subject_N != subject).tolist()
        of_subject.append(choose_decision(evidence, objective, others).decision if len(others) else plain)
    return [of_subject[subject] for subject in evidence.subject_N]


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Where the mean over many more lies with this confidence, within 0 and 1 (Student's t); None of fewer than two."""
    if len(values) < 2:
        return None
    mean, half = float(np.mean(values)), _half_width(np.asarray(values), (1 + confidence) / 2)
    return max(0.0, mean - half), min(1.0, mean + half)


def _candidates(decision: Decision, seen: Sequence[int]) -> Iterator[tuple[str, list[_Candidate]]]:
    """Each kind of rule with what is tried of it beside the decision, from the plainest on."""

    def changed(field: str, values: tuple[float, ...], regions: Sequence[int], value: float) -> Decision:
        own = tuple(value if region in regions else old for region, old in enumerate(values))
        changes: dict[str, Any] = {field: own}
        return dataclasses.replace(decision, **changes)

    if not decision.largest_tumour_only:
        largest = dataclasses.replace(decision, largest_tumour_only=True)
        yield "largest tumour only", [_Candidate(None, None, largest)]
    groups = [(None, seen), *((region, [region]) for region in seen)]
    nearest = sorted(GRID, key=lambda threshold: abs(threshold - PLAIN_THRESHOLD))
    for kind, field, now, values, which in (
        ("threshold", "thresholds", decision.thresholds, nearest, groups),
        ("empty below mm3", "empty_below_mm3", decision.empty_below, SIZES_MM3, groups[1:]),
        ("smallest mm3", "smallest_mm3", decision.smallest, SIZES_MM3, groups[1:]),
    ):
        tried = [
            _Candidate(region, value, changed(field, now, regions, value))
            for value in values
            for region, regions in which
        ]
        yield kind, [each for each in tried if each.decision != decision]


def _test(kind: str, candidates: Sequence[_Candidate], gain_VS: NDArray[np.float64]) -> tuple[Taken, _Candidate] | None:
    """The best value of a kind, where the kind gains by more than chance: None where it does not."""
    subjects = gain_VS.shape[1]
    others_VS = (gain_VS.sum(axis=1, keepdims=True) - gain_VS) / (subjects - 1)
    best_S = others_VS.argmax(axis=0)  # of equals the first, which is the plainest
    # Where nothing helps the others, nothing is changed.
    gain_S = np.where(others_VS.max(axis=0) > 0, gain_VS[best_S, np.arange(subjects)], 0.0)
    gain = float(gain_S.mean())
    at_least = gain - _half_width(gain_S, CONFIDENCE)
    if not at_least > 0:
        return None
    best = candidates[int(gain_VS.mean(axis=1).argmax())]
    better, worse = int((gain_S > 0).sum()), int((gain_S < 0).sum())
    return (
        Taken(
            kind=kind, region=best.region, value=best.value, gain=gain, at_least=at_least, better=better, worse=worse
        ),
        best,
    )


def _half_width(values: NDArray[np.float64], quantile: float) -> float:
    """Student's t at this quantile times the mean's standard error."""
    from scipy.special import stdtrit  # as long to import as Ray, and wanted at a run's end

    return float(stdtrit(len(values) - 1, quantile)) * float(values.std(ddof=1)) / math.sqrt(len(values))
