"""From samples read to torch tensors, computed with NumPy: a CPU's part is Delivery's, without DALI.

M modalities, R regions, D H W voxels z, y, x.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from dali_pipelines import augment_on_cpu
from dali_pipelines.buffers import BufferPool
from dali_pipelines.delivery import Batch
from dali_pipelines.graph import NOISE_BANK, GraphConfig, change_intensities
from dali_pipelines.noise_bank import make_noise_bank
from dali_pipelines.resample_on_cpu import warp, zoom
from dali_pipelines.source import Sample

Image = NDArray[np.float32]
Label = NDArray[np.uint8]


class DeliveryOnCpu:
    """The training graph without DALI: what graph.py says, by the operations of augment_on_cpu.py."""

    def __init__(self, config: GraphConfig) -> None:
        self._config = config
        self._scratch = BufferPool()
        self._threads = ThreadPoolExecutor(config.num_threads) if config.num_threads > 1 else None
        noisy = config.augmentation.noise_probability
        self._bank = {NOISE_BANK: make_noise_bank(config.modalities, config.size)} if noisy else {}

    def run(self, samples: Sequence[Sample]) -> Batch:
        """Compute one batch; a sample is one thread's, so that no result depends on their number."""
        config, count = self._config, len(samples)
        image = np.empty((count, config.modalities, *config.size), np.float32)
        regions = np.empty((count, len(config.regions), *config.size), np.uint8)
        work = (self._threads.map if self._threads else map)(self._compute, samples, image, regions)
        for _ in work:
            pass
        return Batch(
            image=deliver(image, config),
            regions=torch.from_numpy(regions),
            plans=tuple(sample.plan for sample in samples),
            replacements=tuple(entry for sample in samples for entry in sample.replacements),
        )

    def _compute(self, sample: Sample, image: Image, regions: Label) -> None:
        """One sample into its place in the batch: `image` (M, …), `regions` (R, …)."""
        config, given = self._config, sample.plan.parameters
        size = (1, *config.size)[-3:]
        label = np.empty(size, np.uint8)
        self._change_geometry(sample, image.reshape(-1, *size), label)
        change_intensities(augment_on_cpu, image, given | self._bank, config)
        augment_on_cpu.regions(label, config.regions, regions.reshape(-1, *size))

    def _change_geometry(self, sample: Sample, out: Image, out_label: Label) -> None:
        """graph.change_geometry and graph.normalise in their order; a slice is a volume of one plane."""
        config, given = self._config, sample.plan.parameters
        scale, offset, brains = given["normalise_scale"], given["normalise_offset"], config.skull_stripped
        image = sample.image if sample.image.ndim == 4 else sample.image[:, None]
        label = sample.label[0] if sample.image.ndim == 4 else sample.label
        augmentation = config.augmentation
        rotates = bool(augmentation.rotation_probability and given["rotate_on"])
        zooms = bool(augmentation.scale_probability and given["zoom_on"])
        if not (rotates or zooms):
            flags = np.array([0, *given["mirror"]][-3:])
            image = augment_on_cpu.mirrored(image, flags)
            augment_on_cpu.normalise(image, scale, offset, out, skull_stripped=brains)
            out_label[...] = augment_on_cpu.mirrored(label[None], flags)[0]
            return
        scratch = self._scratch.take(4 * image.size)
        block = scratch[: 4 * image.size].view(np.float32).reshape(image.shape)
        if rotates:  # voxel by voxel, as warp wants it
            block = np.moveaxis(block.reshape(*image.shape[1:], -1), -1, 0)
        if brains:
            augment_on_cpu.normalise(image, scale, offset, block)
        else:
            np.copyto(block, image)
        if rotates:
            warp(block, label, _of_a_volume(given["warp_matrix"]), out, out_label)
        else:
            zoom(block, label, [0, *given["zoom_start"]][-3:], [1, *given["zoom_end"]][-3:], out, out_label)
        if not brains:
            augment_on_cpu.normalise(out, scale, offset, out, skull_stripped=False)
        self._scratch.give_back(scratch)


def _of_a_volume(matrix: NDArray[np.generic]) -> NDArray[np.float32]:
    """The matrix (3, 4); that of a slice, (2, 3), leaves the only plane where it is."""
    if matrix.shape == (3, 4):
        return matrix.astype(np.float32)
    full = np.eye(3, 4, dtype=np.float32)
    full[np.ix_([0, 1], [0, 1, 3])] = matrix
    return full


def deliver(image: Image, config: GraphConfig) -> torch.Tensor:
    """The axes and the type that the trainer asked for."""
    tensor = torch.from_numpy(image)
    if config.channels_last:
        tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 1, -1))).movedim(-1, 1)
    return tensor.half() if config.float16 else tensor
