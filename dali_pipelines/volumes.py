"""Whole cases for validation and prediction: normalised in a DALI graph, the next one read meanwhile.

M modalities, R regions, D H W voxels z, y, x of the stored (cropped) grid.
"""

import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from torch.utils.dlpack import from_dlpack

from dali_pipelines import augment
from dali_pipelines.devices import parse_device
from dali_pipelines.run_ahead import RunAhead
from dali_pipelines.source import CaseReadError
from storage import DecodedCaseCache, normalisation_coefficients


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One case in the stored grid: `image_MDHW` float32, `regions_RDHW` uint8 or None without a label."""

    case_id: str
    image_MDHW: torch.Tensor
    regions_RDHW: torch.Tensor | None


def build_volume_pipeline(*, device_id: int | None, on_gpu: bool, num_threads: int) -> Any:
    """A DALI pipeline of one case at a time: image int16 (M, D, H, W) and label uint8 (1, D, H, W) of any shape."""

    @pipeline_def(enable_conditionals=True, prefetch_queue_depth=1)
    def prepare_volume() -> Any:
        scale = fn.external_source(name="normalise_scale", ndim=1, no_copy=True)
        offset = fn.external_source(name="normalise_offset", ndim=1, no_copy=True)
        image = fn.external_source(name="image", dtype=types.INT16, layout="CDHW", no_copy=True)
        label = fn.external_source(name="label", dtype=types.UINT8, layout="CDHW", no_copy=True)
        if on_gpu:
            image, label = image.gpu(), label.gpu()
        return augment.normalise(image, scale, offset), augment.regions(label)

    return prepare_volume(batch_size=1, num_threads=num_threads, device_id=device_id)


class VolumeLoader:
    """Iterate over whole cases, in the order given; each iteration starts afresh. Raises CaseReadError."""

    def __init__(
        self,
        cache: DecodedCaseCache,
        case_ids: Sequence[str],
        *,
        device: str = "cpu",
        normalisation: Literal["zscore", "minmax"] = "zscore",
        graph_threads: int = 1,
    ) -> None:
        place = parse_device(device)
        self._cache = cache
        self._case_ids = tuple(case_ids)
        self._normalisation = normalisation
        self._pipeline = build_volume_pipeline(
            device_id=place.index, on_gpu=place.type == "cuda", num_threads=graph_threads
        )
        self._pipeline.build()

    def __len__(self) -> int:
        return len(self._case_ids)

    def __iter__(self) -> Iterator[Volume]:
        # The generator knows the parts, not this object, so that the object can be collected while it runs.
        volumes = _compute_volumes(self._cache, self._case_ids, self._normalisation, self._pipeline)
        feed = RunAhead(volumes, ready=1, name="volume-feed")
        end = weakref.finalize(self, feed.stop)
        try:
            for _ in self._case_ids:
                yield feed.next()
        finally:
            end()


def _compute_volumes(
    cache: DecodedCaseCache, case_ids: Sequence[str], normalisation: Literal["zscore", "minmax"], pipeline: Any
) -> Generator[Volume, None, None]:
    for case_id in case_ids:
        info = cache.store.info(case_id)
        try:
            arrays = cache.read_case(case_id)
        except Exception as error:
            raise CaseReadError(
                f"case {case_id} could not be read: {type(error).__name__}: {error}; verify the store"
            ) from error
        scale, offset = normalisation_coefficients(info, normalisation)
        image = np.ascontiguousarray(arrays.image_MDHW, np.int16)
        label = arrays.label_DHW
        block = np.zeros(image.shape[1:], np.uint8) if label is None else np.ascontiguousarray(label, np.uint8)
        pipeline.feed_input("normalise_scale", [scale])
        pipeline.feed_input("normalise_offset", [offset])
        pipeline.feed_input("image", [image])
        pipeline.feed_input("label", [block[None]])
        image_MDHW, regions_RDHW = (_own(from_dlpack(output.as_tensor())[0]) for output in pipeline.run())
        yield Volume(case_id=case_id, image_MDHW=image_MDHW, regions_RDHW=None if label is None else regions_RDHW)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """On a GPU a copy in torch's memory: DALI writes the next case over what it lent, even while kernels read it."""
    if tensor.device.type == "cpu":
        return tensor
    copy = tensor.clone()
    torch.cuda.current_stream(tensor.device).synchronize()
    return copy
