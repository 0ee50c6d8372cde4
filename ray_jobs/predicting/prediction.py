"""One case predicted: probabilities averaged over networks, nested masks, files and scores. Knows no Ray.

Shapes: M modality, R region, D H W voxels z y x in LPS of the whole scan.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dali_pipelines import VolumeLoader
from models import RegionRules, segment_regions
from ray_jobs.evaluation.case_scores import describe_case, volumes_of
from ray_jobs.evaluation.trained import TrainedNetwork, open_trained
from ray_jobs.pictures.renders import draw_render
from ray_jobs.pictures.sections import draw_sections
from ray_jobs.predicting.folder import CaseResult
from ray_jobs.predicting.input import FolderInput, StoreInput
from ray_jobs.predicting.predict_config import InferenceConfig
from scoring import RulesName, score_case
from storage import CaseInfo, HeldCase, InputError, Task, region_masks
from storage.cases.grid import box_slices, uncropped
from storage.cases.segmentation import encode_probabilities, encode_segmentation
from storage.labels.conventions import LabelConvention
from storage.store.plausibility import Spacing, case_notices

SEGMENTATION, PROBABILITIES = "{case_id}_seg.nii.gz", "{case_id}_prob.nii.gz"
SECTIONS, RENDER = "figures/{case_id}_sections.png", "figures/{case_id}_3d.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionPlan:
    """What every worker is sent."""

    checkpoints: tuple[str, ...]
    source: StoreInput | FolderInput
    rules: RegionRules
    inference: InferenceConfig
    scored_by: RulesName
    written: LabelConvention | None
    """In whose values segmentations are written; None: each case's own."""
    probabilities: bool
    figures: bool
    spacing: Spacing | None = None
    """Of the voxels that the networks were trained on, where they say it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakePredictor:
    """Picklable; called where the device is."""

    plan: PredictionPlan
    use_gpu: bool

    def __call__(self) -> Callable[[str], CaseResult]:
        device = torch.device("cuda:0" if self.use_gpu else "cpu")
        networks = [open_trained(uri, device) for uri in self.plan.checkpoints]
        return CasePredictor(self.plan, networks, device).predict


class CasePredictor:
    """Predicts the cases of a plan with its networks on one device."""

    def __init__(self, plan: PredictionPlan, networks: list[TrainedNetwork], device: torch.device) -> None:
        self._plan, self._networks, self._device = plan, networks, device
        told = {key: value for key, value in dataclasses.asdict(plan.inference).items() if value is not None}
        self.evaluators = [
            network.evaluator(dataclasses.replace(network.config.validation, **told)) for network in networks
        ]

    def predict(self, case_id: str) -> CaseResult:
        """Predict, write and score the case. Raises InputError for one that cannot be read or is too large."""
        try:
            return self._predict(case_id)
        except (MemoryError, torch.OutOfMemoryError) as error:
            said = (str(error).splitlines() or ["no memory left"])[0]
            raise InputError(
                f"{case_id} is too large for this machine ({said}); give --inference.window-batch 1, or fewer --workers"
            ) from error

    @torch.inference_mode()
    def _predict(self, case_id: str) -> CaseResult:
        plan, clock = self._plan, _Clock()
        held = plan.source.read(case_id)
        clock.lap("reading")
        probabilities_RDHW = self.probabilities(held)
        predicted_DHW = segment_regions(probabilities_RDHW, plan.rules, spacing_mm=held.case.spacing)
        clock.lap("network")
        values = plan.written or held.convention
        files = {SEGMENTATION: encode_segmentation(predicted_DHW, held.case, values)}
        if plan.probabilities:
            files[PROBABILITIES] = encode_probabilities(probabilities_RDHW.cpu().numpy(), held.case)
        clock.lap("writing")
        stored_DHW = held.arrays.label_DHW
        label_DHW = None if stored_DHW is None else uncropped(stored_DHW, held.case)
        record = score_labels(predicted_DHW, label_DHW, held.case, held.task, plan.scored_by)
        if notices := case_notices(held.case, held.task, plan.spacing):
            record["notices"] = notices
        if held.case.notes:
            record["notes"] = list(held.case.notes)
        if held.label_refused is not None:
            record["label_refused"] = held.label_refused
        clock.lap("scoring")
        if plan.figures:
            inside, regions = box_slices(held.case.bbox), held.task.regions
            label = None if label_DHW is None else region_masks(label_DHW[inside], regions).astype(bool)
            predicted = region_masks(predicted_DHW[inside], regions).astype(bool)
            shown = (held.case, regions, held.arrays.image_MDHW, label, predicted)
            files[SECTIONS] = draw_sections(*shown)
            files[RENDER] = draw_render(*shown, skull_stripped=held.task.skull_stripped)
            clock.lap("figures")
        named = {name.format(case_id=case_id): content for name, content in files.items()}
        return CaseResult(files=named, record={**record, "seconds": clock.seconds})

    def probabilities(self, held: HeldCase) -> torch.Tensor:
        """Probabilities_RDHW of the whole scan, float32: the networks' mean, 0 outside the frame of each.

        Every network sees the case as its own training did: its normalisation and its frame.
        """
        total_RDHW: torch.Tensor | None = None
        for network, evaluator in zip(self._networks, self.evaluators, strict=True):
            config, case = network.config, held.case
            (volume,) = VolumeLoader(
                held,
                [case.case_id],
                device=str(self._device),
                normalisation=network.normalisation,
                frame=config.frame,
            )
            part_RDHW = evaluator.probabilities(volume.image_MDHW, outside_M=volume.outside_M)
            origin, shape = config.frame.box(case)
            place = tuple(
                slice(low + start, low + start + side)
                for (low, _), start, side in zip(case.bbox, origin, shape, strict=True)
            )
            if total_RDHW is None:
                total_RDHW = part_RDHW.new_zeros((len(part_RDHW), *case.original_shape))
            total_RDHW[(slice(None), *place)] += part_RDHW
        if total_RDHW is None:
            raise InputError("wanted at least one --checkpoint, got none")
        return total_RDHW.div_(len(self._networks)) if len(self._networks) > 1 else total_RDHW


def score_labels(
    predicted_DHW: NDArray[np.uint8], label_DHW: NDArray[np.uint8] | None, case: CaseInfo, task: Task, rules: RulesName
) -> dict[str, Any]:
    """The case's record: its scores by those rules, without a label its volumes."""
    if label_DHW is None:
        counts = dict(enumerate(np.bincount(predicted_DHW[predicted_DHW > 0]).tolist()))
        return describe_case(case.case_id, volumes_of(counts, task.regions, case.spacing), labelled=False, task=task)
    scores = score_case(predicted_DHW, label_DHW, task=task, rules=rules, spacing_mm=case.spacing)
    return describe_case(case.case_id, scores, labelled=True, task=task)


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._last = round(now - self._last, 3), now
