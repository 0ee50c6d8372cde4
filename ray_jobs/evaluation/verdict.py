"""The end of a run: the decision that its validation cases choose, and scores of cases that did not choose theirs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from models import (
    Choice,
    Decision,
    RegionScores,
    choose_decision,
    nested_decisions,
)
from ray_jobs.evaluation.choice_in_words import describe_choice, say_choice, say_trust
from ray_jobs.evaluation.validation import Evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """A decision, how it was chosen (None: thresholds were given), and the validation as it is announced."""

    decision: Decision
    choice: Choice | None
    validation: Evaluation

    def score(self, cases: Evaluation) -> Evaluation:
        """Return other cases with their scores by this decision."""
        if cases.evidence is None:
            return cases
        return rescore(cases, [self.decision] * len(cases.evidence.cases), self.decision)

    def summary(self) -> dict[str, Any]:
        """Return what `summary.json` says of it: the decision, what was taken by what evidence, a line for each."""
        validation, subjects = self.validation, subjects_of(self.validation)
        names, objective = validation.curves.regions, validation.objective
        if self.choice is None:
            choice = Choice(decision=self.decision, taken=(), unseen=())
            said = ["Decision: thresholds as given, all is kept."]
        else:
            choice, said = self.choice, say_choice(self.choice, names, objective, subjects)
        return describe_choice(choice, names) | {"said": [*said, say_trust(validation.interval, objective, subjects)]}


def decide(validation: Evaluation) -> Verdict:
    """Choose by the evidence of the validation cases, and score each by what the other subjects choose.

    Where thresholds were given they stand, and all is kept.
    """
    evidence, objective = validation.evidence, validation.objective
    if evidence is None:
        return Verdict(decision=validation.decision, choice=None, validation=validation)
    choice = choose_decision(evidence, objective)
    nested = rescore(validation, nested_decisions(evidence, objective), choice.decision)
    return Verdict(decision=choice.decision, choice=choice, validation=nested)


def rescore(evaluation: Evaluation, decisions: Sequence[Decision], saved: Decision) -> Evaluation:
    """Return the evaluation with each case, in the order of its evidence, scored by its own decision."""
    evidence = evaluation.evidence
    assert evidence is not None
    rows = {
        case.case_id: evidence.case_scores(number, decision)
        for number, (case, decision) in enumerate(zip(evidence.cases, decisions, strict=True))
    }
    means = {kind: tuple(np.mean([row[kind] for row in rows.values()], axis=0).tolist()) for kind in ("iou", "dice")}
    by_case = {
        case_id: RegionScores(threshold=decision.thresholds, **row, cases=1)
        for (case_id, row), decision in zip(rows.items(), decisions, strict=True)
    }
    return dataclasses.replace(
        evaluation,
        scores=RegionScores(threshold=saved.thresholds, **means, cases=len(rows)),
        by_case=by_case,
        thresholds=dict(zip(evaluation.curves.regions, saved.thresholds, strict=True)),
    )


def subjects_of(evaluation: Evaluation) -> int:
    """Return of how many subjects the cases are."""
    return len({evaluation.subjects.get(case_id, case_id) for case_id in evaluation.by_case})
