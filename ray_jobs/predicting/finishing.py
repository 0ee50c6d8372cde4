"""What is made of a predicted case: its files, scores and figures. Knows no network and no Ray.

Shapes: R region, D H W voxels z y x in LPS of the whole scan.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_jobs.evaluation.case_scores import describe_case, volumes_of
from ray_jobs.pictures.copies import encode_copy
from ray_jobs.pictures.renders import draw_render
from ray_jobs.pictures.sections import draw_sections
from ray_jobs.predicting.folder import CaseResult
from ray_jobs.predicting.viewer import COPY
from scoring import RulesName, score_case
from storage import CaseInfo, HeldCase, InputError, Task, region_masks
from storage.cases.grid import box_slices, uncropped
from storage.cases.segmentation import encode_probabilities, encode_segmentation
from storage.labels.conventions import LabelConvention
from storage.store.plausibility import Spacing, case_notices, registration_notices

SEGMENTATION, PROBABILITIES = "{case_id}_seg.nii.gz", "{case_id}_prob.nii.gz"
SECTIONS, RENDER = "figures/{case_id}_sections.png", "figures/{case_id}_3d.png"


class Clock:
    """Seconds of each stage, as `now` counts them."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._now = now
        self._last = now()

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = self._now()
        self.seconds[stage], self._last = round(now - self._last, 3), now


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A case with its labels; with its probabilities where they are to be written. `seconds` are those so far."""

    held: HeldCase
    predicted_DHW: NDArray[np.uint8]
    probabilities_RDHW: NDArray[np.float32] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CaseFinisher:
    """Writes, scores and draws predicted cases. Small enough to be sent about; its arrays it leaves as they are."""

    scored_by: RulesName
    written: LabelConvention | None
    """In whose values segmentations are written; None: each case's own."""
    figures: bool
    viewer: bool
    """Whether a copy is made to scroll through."""
    spacing: Spacing | None = None
    """Of the voxels that the networks were trained on, where they say it."""

    def __call__(self, predicted: Predicted) -> CaseResult:
        """Finish the case. Raises InputError where it is too large for that."""
        try:
            return self.finish(predicted, Clock())
        except MemoryError as error:
            raise too_large(
                predicted.held.case.case_id, error, "fewer --workers, or --no-figures --no-viewer"
            ) from error

    def finish(self, predicted: Predicted, clock: Clock) -> CaseResult:
        """Return the case's files and record."""
        held, predicted_DHW = predicted.held, predicted.predicted_DHW
        case, task = held.case, held.task
        files = {SEGMENTATION: encode_segmentation(predicted_DHW, case, self.written or held.convention)}
        if predicted.probabilities_RDHW is not None:
            files[PROBABILITIES] = encode_probabilities(predicted.probabilities_RDHW, case)
        clock.lap("writing")
        stored_DHW = held.arrays.label_DHW
        label_DHW = None if stored_DHW is None else uncropped(stored_DHW, case)
        record = score_labels(predicted_DHW, label_DHW, case, task, self.scored_by)
        notices = case_notices(case, task, self.spacing)
        notices += registration_notices(held.arrays.image_MDHW, case.modalities, task)
        if notices:
            record["notices"] = notices
        if case.notes:
            record["notes"] = list(case.notes)
        if held.label_refused is not None:
            record["label_refused"] = held.label_refused
        clock.lap("scoring")
        if self.figures or self.viewer:
            inside, regions = box_slices(case.bbox), task.regions
            label = None if label_DHW is None else region_masks(label_DHW[inside], regions).astype(bool)
            drawn = region_masks(predicted_DHW[inside], regions).astype(bool)
            shown = (case, regions, held.arrays.image_MDHW, label, drawn)
            if self.figures:
                files[SECTIONS] = draw_sections(*shown)
                files[RENDER] = draw_render(*shown, skull_stripped=task.skull_stripped)
                clock.lap("figures")
            if self.viewer:
                files[COPY] = encode_copy(*shown, skull_stripped=task.skull_stripped)
                clock.lap("viewer")
        named = {name.format(case_id=case.case_id): content for name, content in files.items()}
        return CaseResult(files=named, record={**record, "seconds": {**predicted.seconds, **clock.seconds}})


def score_labels(
    predicted_DHW: NDArray[np.uint8], label_DHW: NDArray[np.uint8] | None, case: CaseInfo, task: Task, rules: RulesName
) -> dict[str, Any]:
    """The case's record: its scores by those rules, without a label its volumes."""
    if label_DHW is None:
        counts = dict(enumerate(np.bincount(predicted_DHW[predicted_DHW > 0]).tolist()))
        return describe_case(case.case_id, volumes_of(counts, task.regions, case.spacing), labelled=False, task=task)
    scores = score_case(predicted_DHW, label_DHW, task=task, rules=rules, spacing_mm=case.spacing)
    return describe_case(case.case_id, scores, labelled=True, task=task)


def too_large(case_id: str, error: Exception, remedy: str) -> InputError:
    """What to raise where memory ended at a case."""
    said = (str(error).splitlines() or ["no memory left"])[0]
    return InputError(f"{case_id} is too large for this machine ({said}); give {remedy}")
