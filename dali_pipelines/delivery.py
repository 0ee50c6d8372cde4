"""From samples read to torch tensors: fed to a DALI pipeline, run, handed over without a copy.

B batch, M modalities, R regions, D H W voxels z, y, x.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.dlpack import from_dlpack

from dali_pipelines.graph import NOISE_BANK, GraphConfig, build_patch_pipeline, parameter_inputs
from dali_pipelines.noise_bank import make_noise_bank
from dali_pipelines.sampling import PatchPlan
from dali_pipelines.source import Replacement, Sample


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's part of a global batch. `image` float, (B, M, D, H, W) or (B, M, H, W); `regions` uint8, (B, R, …)."""

    image: torch.Tensor
    regions: torch.Tensor
    plans: tuple[PatchPlan, ...]
    replacements: tuple[Replacement, ...] = ()

    @property
    def case_ids(self) -> tuple[str, ...]:
        """The cases that the patches were cut from."""
        return tuple(plan.case_id for plan in self.plans)


class Delivery:
    """A built training pipeline and how it is fed."""

    def __init__(self, config: GraphConfig) -> None:
        self._pipeline = build_patch_pipeline(config)
        self._pipeline.build()
        self._parameters = tuple(parameter_inputs(config.augmentation))
        self._channels_last = config.channels_last
        self._bank: Any = None
        if config.augmentation.noise_probability:
            self._bank = make_noise_bank(config.modalities, config.size)
            if config.on_gpu:
                # A copy of its own: torch warns of memory that it may not write.
                self._bank = torch.tensor(self._bank, device=f"cuda:{config.device_id}")

    def run(self, samples: Sequence[Sample]) -> Batch:
        """Compute one batch; returns when the tensors are ready to be read."""
        feed = self._pipeline.feed_input
        feed("image", [sample.image for sample in samples])
        feed("label", [sample.label for sample in samples])
        for name in self._parameters:
            feed(name, [sample.plan.parameters[name] for sample in samples])
        if self._bank is not None:
            feed(NOISE_BANK, [self._bank] * len(samples))
        # The inputs are not copied: `samples` keeps them alive until run() has returned, and nothing reads them later.
        image, regions = (from_dlpack(output.as_tensor()) for output in self._pipeline.run())
        if self._channels_last:
            image = image.movedim(-1, 1)
        return Batch(
            image=image,
            regions=regions,
            plans=tuple(sample.plan for sample in samples),
            replacements=tuple(entry for sample in samples for entry in sample.replacements),
        )


class InFlight:
    """Keeps batches on a GPU alive until the work that was queued on them is done.

    torch frees memory in the order of its stream; memory that DALI lent would go back at once, and the next batch
    would be written over one that a kernel still reads.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._waiting: deque[tuple[torch.cuda.Event, Batch]] = deque()
        self._current: Batch | None = None

    def hand_out(self, batch: Batch) -> Batch:
        """Remember `batch`, and let go of those before it that the GPU has finished with."""
        if self._device.type != "cuda":
            return batch
        if self._current is not None:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._device))
            self._waiting.append((event, self._current))
        while self._waiting and self._waiting[0][0].query():
            self._waiting.popleft()
        self._current = batch
        return batch
