"""What every check is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.stores import labelled_cases
from dali_pipelines import AugmentationConfig, PatchLoader, SamplingConfig
from storage import DecodedCaseCache

GIB = 2**30
MOST_CASES = 8  # of a store: to decode a whole cohort would cost the minutes that are paid for


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Cases, device and time. side: of the patches that are checked. folder: for what a check writes."""

    cache: DecodedCaseCache
    device: torch.device
    side: int
    seconds_left: Callable[[], float]
    folder: Path

    @property
    def cases(self) -> tuple[str, ...]:
        """Those that are decoded when the checks begin."""
        return labelled_cases(self.cache.store)[:MOST_CASES]

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def full_side(self) -> int:
        """Of the patches that are measured; a CPU's figures say nothing but that the program runs."""
        return 128 if self.on_gpu else max(16, self.side // 2)

    @property
    def preset(self) -> str:
        """The network that is measured: nnU-Net's where it can be."""
        return "nnunet" if self.on_gpu else "tiny"

    def is_time_up(self) -> bool:
        """Whether a check that repeats its work must come to its end."""
        return self.seconds_left() <= 0

    def open_loader(
        self,
        sampling: SamplingConfig,
        augmentation: AugmentationConfig,
        *,
        device: str | None = None,
    ) -> PatchLoader:
        """A loader over the cases, on this device or another."""
        return PatchLoader(
            self.cache,
            self.cases,
            sampling=sampling,
            augmentation=augmentation,
            device=device or str(self.device),
            channels_last=True,
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A row of the table. passed: None where there is nothing to pass; what: which of several that a check looks at."""

    figures: str
    passed: bool | None = None
    what: str = ""
