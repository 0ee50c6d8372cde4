"""From samples read to torch tensors: fed to a DALI pipeline, run, handed over without a copy.

B batch, M modalities, R regions, D H W voxels z, y, x.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali.backend import TensorCPU
from torch.utils.dlpack import from_dlpack

from dali_pipelines.graph import NOISE_BANK, GraphConfig, build_patch_pipeline, parameter_inputs
from dali_pipelines.noise_bank import make_noise_bank
from dali_pipelines.sampling import PatchPlan
from dali_pipelines.source import Replacement, Sample

# Of a tensor of torch's, DALI would ask for torch's current stream, which is the one that trains, and work in its
# order. Here nothing is to be ordered: the noise bank was there before the first batch, and is never written again.
_STREAM_OF_DALI = -1


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
        self._page_locked = config.on_gpu
        self._bank: torch.Tensor | None = None
        if config.augmentation.noise_probability:
            self._bank = make_noise_batch(config, torch.device(f"cuda:{config.device_id}" if config.on_gpu else "cpu"))

    def run(self, samples: Sequence[Sample]) -> Batch:
        """Compute one batch; returns when the tensors are ready to be read."""
        feed = self._pipeline.feed_input
        feed("image", [self._block(sample.image) for sample in samples])
        feed("label", [self._block(sample.label) for sample in samples])
        for name in self._parameters:
            feed(name, [sample.plan.parameters[name] for sample in samples])
        if self._bank is not None:
            feed(NOISE_BANK, self._bank, cuda_stream=_STREAM_OF_DALI)
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

    def _block(self, voxels: NDArray[np.generic]) -> NDArray[np.generic] | TensorCPU:
        """Voxels as DALI shares them; of NumPy's arrays it believes that a GPU cannot fetch them by itself."""
        return TensorCPU(voxels, "", is_pinned=True) if self._page_locked else voxels


def make_noise_batch(config: GraphConfig, device: torch.device) -> torch.Tensor:
    """The noise bank once for each sample of a batch, (B, M, D + slack, …), in one piece on the device.

    DALI shares what lies in one piece. Anything else it copies on a GPU for every batch, and it refuses a stride of 0.
    So each sample has its own: 4 * M * (D + 32) * (H + 32) * (W + 32) bytes, 66 MB for 4 modalities at 128^3.
    """
    bank = make_noise_bank(config.modalities, config.size)
    # Ordinary memory has reached the GPU when this returns, so that DALI's streams need not wait for torch's.
    return torch.from_numpy(np.repeat(bank[np.newaxis], config.batch_size, axis=0)).to(device)


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
