"""Whole cases for validation and prediction: normalised in a DALI graph, the next one read meanwhile.

M modalities, R regions, D H W voxels z, y, x of the frame's box: by default the stored, cropped grid.
"""

import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import pipeline_def
from torch.utils.dlpack import from_dlpack

from dali_pipelines import augment
from dali_pipelines.augmentation import NONE
from dali_pipelines.devices import make_current, parse_device
from dali_pipelines.graph import NORMALISE, GraphConfig, declare_parameters, declare_voxels, normalise, remove_sources
from dali_pipelines.run_ahead import RunAhead
from dali_pipelines.source import CaseReadError, OnBadCase, is_of_the_case, stored_dtype
from storage import CaseInfo, DecodedCaseCache, Frame, HeldCase, normalisation_coefficients
from storage.cases.normalisation import filled_coefficients
from storage.cases.patch import cut_patch


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One case in the frame's box: `image_MDHW` float32, `regions_RDHW` uint8 or None without a label.

    `outside_M` is what the 0 outside a scan became in each modality, where 0 is an intensity like any other; None where
    scans are skull-stripped, whose 0 is background and stays 0.
    """

    case_id: str
    image_MDHW: torch.Tensor
    regions_RDHW: torch.Tensor | None
    outside_M: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class BadVolume:
    """A case that could not be read: the error as a value, so that the thread which met it goes on with the others."""

    error: CaseReadError


def build_volume_pipeline(config: GraphConfig) -> Any:
    """A DALI pipeline of one case at a time: image as stored (M, D, H, W), label uint8 (1, D, H, W), of any shape."""

    @pipeline_def(enable_conditionals=True, prefetch_queue_depth=1)
    def prepare_volume() -> Any:
        given = declare_parameters(NORMALISE)
        image, label = declare_voxels(config)
        return normalise(image, given, config), augment.regions(label, config.regions)

    graph = prepare_volume(batch_size=1, num_threads=config.num_threads, device_id=config.device_id)
    remove_sources()
    return graph


class VolumeLoader:
    """Iterate over whole cases, in the order given; each iteration starts afresh.

    Of normalisations "zscore_filled" is nnU-Net's (storage/cases/normalisation.py), which no patch is read with.
    A case that cannot be read raises CaseReadError, or with on_bad_case="skip" is left out and named in `bad_cases`;
    a full disk is not a bad case and raises.

    Args:
        cache: decoded cases, or one that is held in memory.
        case_ids: labelled or not.
        device: "cpu" or "cuda:N": where the graph runs and the tensors lie.
        normalisation, frame: the intensities' scale and the part of the scan, as the model records them.
        graph_threads: CPU threads that compute.
    """

    def __init__(
        self,
        cache: DecodedCaseCache | HeldCase,
        case_ids: Sequence[str],
        *,
        device: str = "cpu",
        normalisation: Literal["zscore", "minmax", "zscore_filled"] = "zscore",
        frame: Frame | None = None,
        graph_threads: int = 1,
        on_bad_case: OnBadCase = "raise",
    ) -> None:
        self.bad_cases: dict[str, str] = {}  # case to reason
        self._on_bad_case = on_bad_case
        self._place = place = parse_device(device)
        self._cache = cache
        self._frame = frame or Frame()
        self._infos = tuple(cache.info(case_id) for case_id in case_ids)
        self._coefficients = tuple(
            None if normalisation == "zscore_filled" else normalisation_coefficients(info, normalisation)
            for info in self._infos
        )
        self._graph = GraphConfig(
            augmentation=NONE,
            size=(1, 1, 1),  # of no account: nothing here resamples
            batch_size=1,
            modalities=len(self._infos[0].modalities) if self._infos else 1,
            integers=stored_dtype(self._infos) is np.int16,
            regions=tuple(region.labels for region in cache.task.regions),
            skull_stripped=cache.task.skull_stripped,
            device_id=place.index,
            on_gpu=place.type == "cuda",
            num_threads=graph_threads,
        )

    def __len__(self) -> int:
        return len(self._infos)

    def __iter__(self) -> Iterator[Volume]:
        """One `Volume` a case; the next is read while it is in use."""
        volumes = _compute_volumes(self._cache, self._infos, self._coefficients, self._frame, self._graph)
        feed = RunAhead(volumes, ready=1, name="volume-feed", initializer=partial(make_current, self._place))
        end = weakref.finalize(self, feed.stop)
        try:
            for info in self._infos:
                volume = feed.next()
                if isinstance(volume, Volume):
                    yield volume
                elif self._on_bad_case == "raise" or not is_of_the_case(volume.error.__cause__):
                    raise volume.error
                else:
                    self.bad_cases[info.case_id] = str(volume.error)
        finally:
            end()


def _compute_volumes(
    cache: DecodedCaseCache | HeldCase,
    infos: Sequence[CaseInfo],
    coefficients: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]] | None],
    frame: Frame,
    config: GraphConfig,
) -> Generator[Volume | BadVolume, None, None]:
    """The cases one by one; runs in the feed's thread, which reads a case while the one before is being used."""
    pipeline = build_volume_pipeline(config)
    for info, known in zip(infos, coefficients, strict=True):
        try:
            origin, shape = frame.box(info)
            arrays = cache.read_case(info.case_id)
            if shape != info.shape or any(origin):
                arrays = cut_patch(arrays, origin, shape)
        except Exception as error:
            failure = CaseReadError(
                f"case {info.case_id} could not be read: {type(error).__name__}: {error}; verify the store"
            )
            failure.__cause__ = error
            yield BadVolume(error=failure)
            continue
        image = np.ascontiguousarray(arrays.image_MDHW, np.int16 if config.integers else np.float32)
        label = arrays.label_DHW
        block = np.zeros(shape, np.uint8) if label is None else np.ascontiguousarray(label)
        scale, offset, *enclosed = known or filled_coefficients(image)
        pipeline.feed_input("normalise_scale", [scale])
        pipeline.feed_input("normalise_offset", [offset])
        pipeline.feed_input("image", [image])
        pipeline.feed_input("label", [block[None]])
        image_MDHW, regions_RDHW = (_own(from_dlpack(output.as_tensor())[0]) for output in pipeline.run())
        for mask_DHW in enclosed:
            image_MDHW[:, torch.from_numpy(mask_DHW)] = torch.from_numpy(offset)[:, None].to(image_MDHW.device)
        yield Volume(
            case_id=info.case_id,
            image_MDHW=image_MDHW,
            regions_RDHW=None if label is None else regions_RDHW,
            outside_M=None if config.skull_stripped else tuple(offset.tolist()),
        )


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """On a GPU a copy in torch's memory: DALI writes the next case over what it lent, even while kernels read it."""
    if tensor.device.type == "cpu":
        return tensor
    copy = tensor.clone()
    torch.cuda.current_stream(tensor.device).synchronize()
    return copy
