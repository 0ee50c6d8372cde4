"""Planned samples read ahead in threads, in order. Knows stores and plans; nothing of augmentation or DALI.

M modalities, D H W voxels z, y, x.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dali_pipelines.augmentation import AugmentationConfig
from dali_pipelines.buffers import Buffer, BufferPool
from dali_pipelines.sampling import PatchPlan, PatchSampler, SamplingConfig
from storage import CaseInfo, DecodedCaseCache, Frame, normalisation_coefficients
from storage.cases.patch import clip_patch
from storage.errors import CorruptStoreError, InputError

# A replacement case may be unreadable as well; more than this many in a row is no accident.
MAX_ATTEMPTS = 8

# Cases whose foreground coordinates are held in memory, a few hundred kB each.
_FOREGROUND_CASES = 256

OnBadCase = Literal["raise", "skip"]
"""What to do where a case cannot be read: stop with its name, or go on with another case, or without it."""


class CaseReadError(InputError):
    """A case could not be read; the message names the case and the sample that wanted it."""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """A sample that another case had to fill: `case_id` could not be read for it, for the reason `error`."""

    epoch: int
    index: int
    attempt: int
    case_id: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was read for a plan: image as stored (M, d, h, w), label uint8 (1, d, h, w); without d for slices."""

    plan: PatchPlan
    image: NDArray[np.generic]
    label: NDArray[np.uint8]
    buffer: Buffer  # the memory of both, to be given back
    replacements: tuple[Replacement, ...]


@dataclass(frozen=True, kw_only=True)
class SampleReader:
    """Reads one sample; any number of threads may call it."""

    cases: DecodedCaseCache
    sampler: PatchSampler
    dimensions: int
    dtype: type[np.int16] | type[np.float32]
    on_bad_case: OnBadCase
    buffers: BufferPool = field(default_factory=BufferPool)

    def read(self, epoch: int, index: int) -> Sample:
        """The sample, or its replacement; raises CaseReadError."""
        replacements: list[Replacement] = []
        for attempt in range(MAX_ATTEMPTS):
            case_id = self.sampler.case_id(epoch, index, attempt)
            try:
                plan = self.sampler.plan(epoch, index, attempt)  # reads where the tumour is
                image, label, buffer = self._read_block(plan)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if self.on_bad_case == "raise" or not is_of_the_case(error):
                    raise CaseReadError(_describe(case_id, epoch, index, reason)) from error
                replacements.append(
                    Replacement(epoch=epoch, index=index, attempt=attempt, case_id=case_id, error=reason)
                )
            else:
                return Sample(plan=plan, image=image, label=label, buffer=buffer, replacements=tuple(replacements))
        last = replacements[-1]
        reason = f"{MAX_ATTEMPTS} cases in a row were unreadable; the last: {last.error}"
        raise CaseReadError(_describe(last.case_id, epoch, index, reason))

    def _read_block(self, plan: PatchPlan) -> tuple[NDArray[np.generic], NDArray[np.uint8], Buffer]:
        """Cut the block from the mapped case into a buffer: the one copy that a patch costs."""
        stored_MDHW, stored_DHW = self.cases.read_case(plan.case_id)
        if stored_DHW is None:
            raise InputError(f"case {plan.case_id} has no label; training needs labelled cases")
        voxels = math.prod(plan.read_shape)
        image_bytes = len(stored_MDHW) * voxels * np.dtype(self.dtype).itemsize
        buffer = self.buffers.take(image_bytes + voxels)
        image = buffer[:image_bytes].view(self.dtype).reshape(len(stored_MDHW), *plan.read_shape)
        label = buffer[image_bytes : image_bytes + voxels].reshape(1, *plan.read_shape)
        inside, target = clip_patch(plan.read_origin, plan.read_shape, stored_DHW.shape)
        everywhere = (slice(None),)
        if label[everywhere + target].size < voxels:
            image.fill(0)
            label.fill(0)
        np.copyto(image[everywhere + target], stored_MDHW[everywhere + inside], casting="same_kind")
        np.copyto(label[everywhere + target], stored_DHW[None][everywhere + inside])
        if self.dimensions == 2:
            image, label = image[:, 0], label[:, 0]
        return image, label, buffer


def is_of_the_case(error: BaseException | None) -> bool:
    """Whether other cases may fare better: a full disk or a cache too small is nobody's bad case."""
    return isinstance(error, CorruptStoreError) or not isinstance(error, InputError)


def labelled_infos(cache: DecodedCaseCache, case_ids: Sequence[str]) -> tuple[CaseInfo, ...]:
    """The records of `case_ids`, sorted; raises InputError for none, or for cases without labels."""
    infos = tuple(cache.store.info(case_id) for case_id in sorted(case_ids))
    if not infos:
        raise InputError("wanted at least one case to cut patches from, got none; check the split")
    unlabelled = [info.case_id for info in infos if not info.labelled]
    if unlabelled:
        raise InputError(
            f"training needs labelled cases, but these have no label: {', '.join(unlabelled[:5])}"
            f"{' …' if len(unlabelled) > 5 else ''}; leave them out of the split"
        )
    return infos


def make_sampler(
    cache: DecodedCaseCache,
    infos: Sequence[CaseInfo],
    sampling: SamplingConfig,
    augmentation: AugmentationConfig,
    normalisation: Literal["zscore", "minmax"],
    frame: Frame | None = None,
) -> PatchSampler:
    """The sampler over these cases of the cache's store. Raises InputError for dropout among a single scan."""
    if sampling.modality_dropout and len(infos[0].modalities) == 1:
        raise InputError(
            f"modality_dropout {sampling.modality_dropout:g} wants cases of two scans or more, the store has "
            f"{infos[0].modalities[0]} alone; leave it out"
        )
    return PatchSampler(
        infos,
        lru_cache(maxsize=_FOREGROUND_CASES)(cache.store.foreground),
        {info.case_id: normalisation_coefficients(info, normalisation) for info in infos},
        sampling=sampling,
        augmentation=augmentation,
        frame=frame,
    )


def stored_dtype(infos: Sequence[CaseInfo]) -> type[np.int16] | type[np.float32]:
    """What images are read as: int16 where every case is stored so, else float32."""
    stored = {info.arrays["image"].dtype for info in infos}
    return np.int16 if stored == {"int16"} else np.float32


def read_ahead(
    read: Callable[[int, int], Sample], samples: Iterator[tuple[int, int]], pool: ThreadPoolExecutor, *, ahead: int
) -> Iterator[Sample]:
    """`read(*sample)` for each of `samples` (epoch, index), in their order, `ahead` of them under way at a time.

    An error is raised where its sample would have come, not earlier.
    """
    waiting: deque[Future[Sample]] = deque(pool.submit(read, *sample) for sample in islice(samples, ahead))
    while waiting:
        sample = waiting.popleft().result()
        waiting.extend(pool.submit(read, *further) for further in islice(samples, 1))
        yield sample


def _describe(case_id: str, epoch: int, index: int, reason: str) -> str:
    return (
        f"case {case_id} could not be read for sample {index} of epoch {epoch}: {reason}; "
        'verify the store, convert the case again, or go on without it (on_bad_case="skip")'
    )
