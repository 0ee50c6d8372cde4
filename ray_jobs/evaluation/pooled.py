"""What the folds of a cross-validation decide together: on every case, by the network that never saw it. No PyTorch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from models import Decision, Evidence, Objective, choose_decision, nested_decisions
from ray_jobs.checkpoints.checkpoint import DECISION, EVIDENCE, Checkpoint
from ray_jobs.checkpoints.run_folder import encode_json
from ray_jobs.evaluation.choice_in_words import describe_choice, say_choice
from ray_jobs.evaluation.decision_file import encode_decision


@dataclasses.dataclass(frozen=True, kw_only=True)
class PooledDecision:
    """The decision of all folds, and each case's scores by what the other subjects, of all folds, choose."""

    decision: Decision
    summary: dict[str, Any]
    by_case: dict[str, dict[str, dict[str, float]]]

    def save(self, checkpoints: Sequence[Checkpoint], regions: Sequence[str]) -> None:
        """Put it in the place of what each fold chose by itself."""
        for checkpoint in checkpoints:
            checkpoint.put(DECISION, encode_json(encode_decision(self.decision, regions)))


def decide_together(
    checkpoints: Sequence[Checkpoint], regions: Sequence[str], objective: Objective
) -> PooledDecision | None:
    """Choose on the evidence of the folds' best checkpoints; None where there is none, as thresholds were given."""
    if not all(checkpoint.has(EVIDENCE) for checkpoint in checkpoints):
        return None
    each = [Evidence.decode(checkpoint.read(EVIDENCE)) for checkpoint in checkpoints]
    evidence = Evidence([case for fold in each for case in fold.cases], each[0].labels)
    choice = choose_decision(evidence, objective)
    by_case: dict[str, dict[str, dict[str, float]]] = {}
    for number, (case, decision) in enumerate(zip(evidence.cases, nested_decisions(evidence, objective), strict=True)):
        by_case[case.case_id] = {
            kind: {**dict(zip(regions, values, strict=True)), "mean": sum(values) / len(values)}
            for kind, values in evidence.case_scores(number, decision).items()
        }
    said = say_choice(choice, regions, objective, len(evidence.subjects))
    said.append("Scores out of fold are each case's by what the other subjects of all folds decide.")
    return PooledDecision(
        decision=choice.decision,
        summary=describe_choice(choice, regions) | {"said": said},
        by_case=by_case,
    )
