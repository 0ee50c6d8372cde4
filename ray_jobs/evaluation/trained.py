"""A trained network from a checkpoint, on disk or S3: what threshold.py and predict.py start from. Knows no Ray."""

import dataclasses
from typing import Literal

import torch

from models import Decision, Network, Precision, build_network, choose_precision
from models.device_setup import set_up_device, settle_execution
from ray_jobs.checkpoints.lookup import find_checkpoint, other_version, read_config
from ray_jobs.checkpoints.trained_on import read_origin
from ray_jobs.evaluation.decision_file import read_decision
from ray_jobs.evaluation.validation import CaseEvaluator
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.groups import ValidationConfig
from storage import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network with its weights, in inference mode on its device, and how it was trained."""

    uri: str
    config: TrainConfig
    model: Network
    precision: Precision
    decision: Decision | None
    """As the checkpoint has it; None where that was taken in mid-epoch."""
    from_nnunet: bool = False
    """Whether it sees cases as nnU-Net shows them: docs/exchange.md."""

    @property
    def normalisation(self) -> Literal["zscore", "minmax", "zscore_filled"]:
        """What whole cases are normalised by."""
        return "zscore_filled" if self.from_nnunet else self.config.normalisation

    def evaluator(self, validation: ValidationConfig | None = None) -> CaseEvaluator:
        """Return what predicts whole cases: as the run's validation did, or as told."""
        return CaseEvaluator(
            self.model,
            self.config.sampling.patch_shape,
            validation or self.config.validation,
            self.precision,
            as_nnunet=self.from_nnunet,
        )


def open_trained(uri: str, device: torch.device) -> TrainedNetwork:
    """Load the checkpoint folder at `uri`, a path or an s3:// URL; of a run's folder, its best checkpoint.

    Raises InputError where there is none, or none that this version understands, and where an imported network cannot
    be built here.
    """
    checkpoint = find_checkpoint(uri)
    config = read_config(checkpoint)
    set_up_device(device)
    precision = choose_precision(device, config.precision, config.model)
    execution = settle_execution(config.execution, device, precision, config.model)
    try:
        model = build_network(config.model, execution).to(device)
        checkpoint.load_weights(model)
    except (ValueError, RuntimeError) as error:
        if config.model.network is None:
            raise
        notice = other_version(checkpoint) or checkpoint.uri
        raise InputError(f"{notice}: its weights have no network to go into: {error}") from error
    return TrainedNetwork(
        uri=checkpoint.uri,
        config=config,
        model=model.eval(),
        precision=precision,
        decision=read_decision(checkpoint),
        from_nnunet=read_origin(checkpoint) is not None,
    )
