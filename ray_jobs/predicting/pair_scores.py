"""One prediction scored against its label. Knows no Ray.

Shapes: D H W voxels z y x in the order of the label's file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_jobs.evaluation.case_scores import describe_case
from ray_jobs.predicting.folder import CaseResult
from ray_jobs.predicting.pairs import Pairs
from scoring import RulesName, score_case, takes_files_as_they_are, title_of
from storage import InputError, open_store
from storage.cases.segmentation_pair import from_store, pair_up, read_file
from storage.labels.conventions import LabelConvention


@dataclass(frozen=True, kw_only=True)
class MakeScorer:
    """Picklable; called where the cases are scored."""

    pairs: Pairs
    rules: RulesName
    trust_grid: bool

    def __call__(self) -> Callable[[str], CaseResult]:
        return PairScorer(self.pairs, self.rules, trust_grid=self.trust_grid).score


class PairScorer:
    """Scores the cases of some pairs, one at a time.

    The programs of some years take of a header nothing but the voxels' sides, and drop values that they do not know.
    Their numbers are reproduced, and what they pass over is noted.
    """

    def __init__(self, pairs: Pairs, rules: RulesName, *, trust_grid: bool) -> None:
        self._pairs, self._rules = pairs, rules
        self._as_they_are = takes_files_as_they_are(rules)
        self._trust_grid = trust_grid or self._as_they_are
        self._store = None if pairs.store is None else open_store(pairs.store)

    def score(self, case_id: str) -> CaseResult:
        """Score the case. Raises InputError for one whose files cannot be read, or not be compared."""
        called = self._pairs.inexact.get(case_id)
        notes = [] if called is None else [f"prediction told by a part of its name: {called}"]
        predicted, of_file = read_file(self._pairs.predictions[case_id], "prediction")
        notes += of_file
        if self._store is None:
            convention = self._pairs.convention or self._pairs.task.convention
            true, of_file = read_file(self._pairs.labels[case_id], "label")
            notes += of_file
        else:
            case, label_DHW = self._store.info(case_id), self._store.read_label(case_id)
            if label_DHW is None:
                raise InputError(f"{case_id} has no label in {self._store.uri}; convert it again with its label")
            convention = self._pairs.convention or self._store.convention_of(case)
            true = from_store(label_DHW, case)
        pair = pair_up(predicted, true, trust_grid=self._trust_grid)
        notes += pair.notes
        true_DHW = pair.true_DHW
        if self._store is None:
            true_DHW, dropped = self._stored(true_DHW, convention, f"label {true.path.name}")
            notes += dropped
        predicted_DHW, dropped = self._stored(pair.predicted_DHW, convention, f"prediction {predicted.path.name}")
        notes += dropped
        scores = score_case(
            predicted_DHW,
            true_DHW,
            task=self._pairs.task,
            rules=self._rules,
            spacing_mm=pair.predicted_spacing_mm if self._as_they_are else pair.spacing_mm,
        )
        record = describe_case(case_id, scores, labelled=True, task=self._pairs.task)
        return CaseResult(files={}, record={**record, "notes": notes} if notes else record)

    def _stored(
        self, values_DHW: NDArray[np.uint8], convention: LabelConvention, what: str
    ) -> tuple[NDArray[np.uint8], list[str]]:
        """The values by their meaning, and a note of those that have none."""
        stored_DHW, unknown = convention.read_values(values_DHW)
        if not unknown:
            return stored_DHW, []
        said = ", ".join(map(str, unknown))
        known = ", ".join(map(str, sorted(convention.stored_by_source)))
        if not self._as_they_are:
            raise InputError(
                f"{what} has values of another task: {said}, wanted {known} ({self._pairs.task.name}); "
                "say --task if all are of that one, or write them in these values"
            )
        dropped = f"values that {self._pairs.task.name} has not ({known}), dropped as {title_of(self._rules)} do"
        return stored_DHW, [f"{dropped}; say --task if they are another's: {said} in {what}"]
