"""One case predicted: probabilities averaged over networks, cut into labels. Knows no Ray.

Shapes: M modality, R region, D H W voxels z y x in LPS of the whole scan.
"""

import dataclasses
from collections.abc import Callable

import torch

from dali_pipelines import VolumeLoader
from models import RegionRules, segment_regions
from ray_jobs.evaluation.trained import TrainedNetwork, open_trained
from ray_jobs.predicting.finishing import Clock, Predicted, too_large
from ray_jobs.predicting.predict_config import InferenceConfig
from ray_jobs.predicting.reading import FolderInput, StoreInput
from storage import HeldCase, InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionPlan:
    """What every worker is sent."""

    checkpoints: tuple[str, ...]
    source: StoreInput | FolderInput
    rules: RegionRules
    inference: InferenceConfig
    probabilities: bool
    """Whether they are kept to be written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakePredictor:
    """Picklable; called where the device is."""

    plan: PredictionPlan
    use_gpu: bool

    def __call__(self) -> Callable[[str], Predicted]:
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

    def predict(self, case_id: str) -> Predicted:
        """Read and predict the case. Raises InputError for one that cannot be read or is too large."""
        try:
            return self.predict_by(Clock(), case_id)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise too_large(case_id, error, "--inference.window-batch 1, or fewer --workers") from error

    @torch.inference_mode()
    def predict_by(self, clock: Clock, case_id: str) -> Predicted:
        """The same, on a clock and without a word on memory."""
        held = self._plan.source.read(case_id)
        clock.lap("reading")
        probabilities_RDHW = self.probabilities(held)
        predicted_DHW = segment_regions(probabilities_RDHW, self._plan.rules, spacing_mm=held.case.spacing)
        kept = probabilities_RDHW.cpu().numpy() if self._plan.probabilities else None
        clock.lap("network")
        return Predicted(held=held, predicted_DHW=predicted_DHW, probabilities_RDHW=kept, seconds=clock.seconds)

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
