"""(seed, epoch, global sample index, attempt) -> PatchPlan: case, place, geometry, intensities. All the randomness.

A plan depends on nothing else: not on the rank, the world size, the number of threads, or what was drawn before.
Places are (z, y, x) in the stored grid. M modalities.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dali_pipelines.augmentation import AugmentationConfig
from dali_pipelines.geometry import Geometry, dali_matrix, draw_geometry, needed_box, place_in_patch, shown_box
from dali_pipelines.intensity_draws import Parameters, draw_intensities, draw_kept, draw_shift
from dali_pipelines.noise_bank import BANK_SLACK
from storage.cases.frame import Frame
from storage.cases.info import CaseInfo, Shape
from storage.errors import InputError

# Further streams of random numbers of an epoch, set apart from the samples' own by their length.
CASE_ORDER, FOREGROUND_PHASE = 0, 1

Coordinates = Mapping[str, NDArray[np.int32]]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What a batch is made of. Raises InputError for numbers that make none."""

    dimensions: Literal[2, 3] = 3
    """3: blocks; 2: axial slices. The model's must be the same."""
    patch_shape: tuple[int, ...] = (128, 128, 128)
    """Voxels of a patch: D H W or, for slices, H W."""
    global_batch_size: int = 2
    """Patches of one optimiser step over all workers, which share it equally."""
    patches_per_epoch: int = 500
    """Patches of an epoch over all workers; what makes no whole batch is left out."""
    foreground_fraction: float = 1 / 3
    """Share of the patches that are placed on tumour; exact over any run of samples, not only on average."""
    modality_dropout: float = 0.0
    """Share of the patches that lose some of their scans, any but all: for a network that predicts without them too."""
    patches_per_case: int = 1
    """Consecutive samples cut from one case. More than 1 saves decoding where cases do not fit the cache, at the price
    of batches that hold fewer different cases."""
    seed: int = 0
    """Of everything that is drawn: cases, places and augmentation, and the network's first weights."""

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise InputError(f"dimensions must be 2 (slices) or 3 (patches), got {self.dimensions}")
        if len(self.patch_shape) != self.dimensions or min(self.patch_shape) < 1:
            raise InputError(f"patch_shape must have {self.dimensions} sides, at least 1 voxel, got {self.patch_shape}")
        for name in ("global_batch_size", "patches_per_case"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patches_per_epoch < self.global_batch_size:
            raise InputError(
                f"patches_per_epoch must be at least one batch ({self.global_batch_size}), got {self.patches_per_epoch}"
            )
        if not 0 <= self.foreground_fraction <= 1:
            raise InputError(f"foreground_fraction must lie within 0 and 1, got {self.foreground_fraction}")
        if not 0 <= self.modality_dropout <= 1:
            raise InputError(f"modality_dropout must lie within 0 and 1, got {self.modality_dropout}")
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")

    @property
    def steps_per_epoch(self) -> int:
        """Whole global batches in an epoch; a remainder is left out, so that all ranks step alike."""
        return self.patches_per_epoch // self.global_batch_size

    @property
    def block_shape(self) -> Shape:
        """The patch as (D, H, W); a slice is one voxel deep."""
        depth, height, width = (1,) * (3 - len(self.patch_shape)) + self.patch_shape
        return depth, height, width


@dataclass(frozen=True, kw_only=True)
class PatchPlan:
    """One sample, decided. The read block starts at `read_origin` (may be negative) and has `read_shape`, both z y x.

    `index` is the sample's number in its epoch, over all ranks; `attempt` counts the cases that could not be read;
    `foreground` is the region it was placed on, None for none. `parameters` are the graph's inputs by name.
    """

    epoch: int
    index: int
    attempt: int
    case_id: str
    foreground: str | None
    read_origin: Shape
    read_shape: Shape
    parameters: Parameters  # without image and label


class PatchSampler:
    """Plans samples over `cases`. `foreground(case_id)` gives region -> (N, 3) int32 voxels; it may be slow."""

    def __init__(
        self,
        cases: Sequence[CaseInfo],
        foreground: Callable[[str], Coordinates],
        coefficients: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
        *,
        sampling: SamplingConfig,
        augmentation: AugmentationConfig,
        frame: Frame | None = None,
    ) -> None:
        self.sampling = sampling
        self.augmentation = augmentation
        self._cases = tuple(cases)
        self._frame = frame or Frame()
        self._foreground = foreground
        self._coefficients = coefficients
        self._patch = np.array(sampling.block_shape, float)

    def plan(self, epoch: int, index: int, attempt: int = 0) -> PatchPlan:
        """Decide sample `index` of `epoch`; `attempt` > 0 replaces a case that could not be read."""
        sampling = self.sampling
        rng = np.random.default_rng([sampling.seed, epoch, index, attempt])
        case = self._case(rng, epoch, index, attempt)
        region, voxel = self._draw_voxel(rng, case.case_id, epoch, index)
        geometry = draw_geometry(rng, self.augmentation, dimensions=sampling.dimensions)
        first, shape = self._frame.box(case)
        origin = self._draw_origin(rng, first, shape, voxel)
        read_origin, read_shape, parameters = self._place(geometry, case.shape, origin, voxel)
        scale, offset = self._coefficients[case.case_id]
        parameters |= draw_intensities(
            rng, self.augmentation, modalities=len(scale), patch_shape=sampling.patch_shape, slack=BANK_SLACK
        )
        # Last of all draws, so that all others are as without them. What is 0 stays 0 in every augmentation but noise.
        kept = draw_kept(rng, sampling.modality_dropout, len(scale))
        offset = offset + draw_shift(rng, self.augmentation, len(scale))
        sigma = np.asarray(parameters["noise_sigma"], np.float32) * kept
        parameters |= {"normalise_scale": scale * kept, "normalise_offset": offset * kept, "noise_sigma": sigma}
        return PatchPlan(
            epoch=epoch,
            index=index,
            attempt=attempt,
            case_id=case.case_id,
            foreground=region,
            read_origin=read_origin,
            read_shape=read_shape,
            parameters=parameters,
        )

    def _place(
        self, geometry: Geometry, shape: Shape, origin: Shape, voxel: NDArray[np.int32] | None
    ) -> tuple[Shape, Shape, Parameters]:
        """The block to read, its origin and shape, and what the graph has to do to it."""
        dimensions = self.sampling.dimensions
        box = np.zeros((2, 3), np.float32)
        matrix = np.eye(3, 4, dtype=np.float32)
        read_origin, read_shape = origin, self.sampling.block_shape
        if geometry.rotates or geometry.scales:
            centre = np.array(origin) + self._patch / 2
            if voxel is not None:
                centre = self._centre_showing(geometry.linear, centre, voxel)
            whole = not geometry.rotates
            start, stop = needed_box(geometry.linear, centre, self._patch, np.array(shape, float), whole_rows=whole)
            if dimensions == 2:
                start[0], stop[0] = origin[0], origin[0] + 1  # the neighbouring slices have no weight
            box = shown_box(geometry.linear, centre, self._patch, start)
            matrix = dali_matrix(geometry.linear, centre, self._patch, start)
            read_origin, read_shape = _as_shape(start), _as_shape(stop - start)
        parameters: Parameters = {
            "rotate_on": np.array(geometry.rotates),
            "warp_matrix": matrix if dimensions == 3 else np.ascontiguousarray(matrix[:2, [0, 1, 3]]),
            "zoom_on": np.array(geometry.scales and not geometry.rotates),
            "zoom_start": box[0, -dimensions:],
            "zoom_end": box[1, -dimensions:],
            "mirror": np.array(geometry.mirror[-dimensions:], np.int32),
        }
        return read_origin, read_shape, parameters

    def case_id(self, epoch: int, index: int, attempt: int = 0) -> str:
        """The case of that sample; reads nothing."""
        rng = np.random.default_rng([self.sampling.seed, epoch, index, attempt])
        return self._case(rng, epoch, index, attempt).case_id

    def _case(self, rng: np.random.Generator, epoch: int, index: int, attempt: int) -> CaseInfo:
        """Cases come in a shuffled order, each once before any comes again. Must draw first."""
        count = len(self._cases)
        spare = int(rng.integers(count))
        group = index // self.sampling.patches_per_case
        number = _case_order(self.sampling.seed, epoch, group // count, count)[group % count]
        if attempt and count > 1:
            number = spare if spare != number else (spare + 1) % count
        return self._cases[number]

    def _draw_voxel(
        self, rng: np.random.Generator, case_id: str, epoch: int, index: int
    ) -> tuple[str | None, NDArray[np.int32] | None]:
        """A tumour voxel, its region drawn first so that a small region comes as often as a large one."""
        chances = rng.random(2)
        if not is_foreground(self.sampling, epoch, index):
            return None, None
        regions = {name: voxels for name, voxels in self._foreground(case_id).items() if len(voxels)}
        if not regions:
            return None, None
        region = list(regions)[int(chances[0] * len(regions))]
        return region, regions[region][int(chances[1] * len(regions[region]))]

    def _draw_origin(
        self, rng: np.random.Generator, first: Shape, shape: Shape, voxel: NDArray[np.int32] | None
    ) -> Shape:
        """The patch within the frame's box, or, along an axis where the box is smaller, the box within the patch."""
        room = np.array(shape) - np.array(self.sampling.block_shape)
        low, high = np.minimum(room, 0), np.maximum(room, 0)
        origin = np.minimum(low + np.floor(rng.random(3) * (high - low + 1)), high)
        if voxel is not None:
            origin = np.clip(voxel - np.array(first) - np.array(self.sampling.block_shape) // 2, low, high)
        return _as_shape(origin + first)

    def _centre_showing(self, linear: Any, centre: Any, voxel: NDArray[np.int32]) -> Any:
        """`centre`, or the voxel itself where rotation and zoom would push the chosen voxel out of the patch."""
        place = place_in_patch(linear, centre, self._patch, voxel.astype(np.float64) + 0.5)
        return centre if np.all((place > 0) & (place < self._patch)) else voxel + 0.5


def is_foreground(sampling: SamplingConfig, epoch: int, index: int) -> bool:
    """Whether a sample is placed on tumour: evenly spread over the indices, from a phase drawn for the epoch."""
    fraction = sampling.foreground_fraction
    start = _foreground_phase(sampling.seed, epoch)
    return math.floor((index + 1) * fraction + start) > math.floor(index * fraction + start)


@lru_cache(maxsize=64)
def _case_order(seed: int, epoch: int, turn: int, count: int) -> tuple[int, ...]:
    order = np.random.default_rng([seed, epoch, turn, CASE_ORDER, count]).permutation(count)
    return tuple(int(number) for number in order)


@lru_cache(maxsize=8)
def _foreground_phase(seed: int, epoch: int) -> float:
    return float(np.random.default_rng([seed, epoch, FOREGROUND_PHASE]).random())


def _as_shape(values: Any) -> Shape:
    z, y, x = (int(value) for value in values)
    return z, y, x
