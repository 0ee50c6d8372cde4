"""A run that is decided, as the driver hands it to every rank. Imports no PyTorch: the driver computes nothing."""

import dataclasses
from pathlib import Path

from ray_jobs.settings.config import TrainConfig
from storage import Splits


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What every rank must know."""

    config: TrainConfig
    store: str
    splits: Splits
    cache: Path
    may_end_at_a_report: bool = False  # a trial, which Tune ends when it hears of a score that is too low
    settled_in: str | None = None  # where runs share it and the cluster: the folder of what memory settles
