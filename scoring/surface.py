"""Points of a surface, and the distances between the surfaces of a whole case and of its lesions.

Every point's nearest one on the other surface is looked up once, in a tree. It serves for a lesion too where it belongs
to the lesion's match. Distances are then computed as a distance transform does, so that they are the same to the bit.
Letters in names: N points.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scoring.scores import Spacing

Distances = NDArray[np.float64]
Points = NDArray[np.int64]
# In voxels a side: what is nearer is found by steps on the lattice, what is farther in a tree.
_REACH = 2

Chosen = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """points: places on a lattice of a shape, N x 3; weights: the area of each; component: what it belongs to."""

    shape: tuple[int, ...]
    points: Points
    weights: NDArray[np.float64]
    component: NDArray[np.int64]

    def of(self, numbers: Collection[int]) -> Chosen:
        """Which points belong to these components."""
        wanted = np.zeros(max(int(self.component.max(initial=0)), *numbers, 0) + 1, dtype=bool)
        wanted[list(numbers)] = True
        return wanted[self.component]


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """From every point of a predicted surface to the nearest of the true one, and the other way, with weights."""

    from_predicted: Distances
    from_true: Distances
    predicted_weights: NDArray[np.float64]
    true_weights: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Of every point which other one is nearest, and how far it is."""

    other: NDArray[np.int64]
    distance: Distances


@dataclass(frozen=True, kw_only=True)
class SurfacePair:
    """The surfaces of a predicted and of a true mask."""

    predicted: Surface
    true: Surface
    spacing_mm: Spacing

    @property
    def whole(self) -> SurfaceDistances:
        """Between the masks; raises ValueError where one is empty."""
        return SurfaceDistances(
            from_predicted=self._of_predicted.distance,
            from_true=self._of_true.distance,
            predicted_weights=self.predicted.weights,
            true_weights=self.true.weights,
        )

    def between(self, predicted: Collection[int], true: Collection[int]) -> SurfaceDistances:
        """Between some components of the one and some of the other; raises ValueError where that is nothing."""
        predicted_N, true_N = self.predicted.of(predicted), self.true.of(true)
        return SurfaceDistances(
            from_predicted=self._distances(self.predicted, predicted_N, self.true, true_N, self._of_predicted),
            from_true=self._distances(self.true, true_N, self.predicted, predicted_N, self._of_true),
            predicted_weights=self.predicted.weights[predicted_N],
            true_weights=self.true.weights[true_N],
        )

    @cached_property
    def _of_predicted(self) -> Nearest:
        return find_nearest(self.predicted, self.true, self.spacing_mm)

    @cached_property
    def _of_true(self) -> Nearest:
        return find_nearest(self.true, self.predicted, self.spacing_mm)

    def _distances(
        self, surface: Surface, chosen_N: Chosen, other: Surface, chosen_other_N: Chosen, of_whole: Nearest
    ) -> Distances:
        """What was found for the whole case serves where it belongs to the lesion's match."""
        distances = of_whole.distance[chosen_N]
        elsewhere = ~chosen_other_N[of_whole.other[chosen_N]]
        if elsewhere.any():
            points, others = surface.points[chosen_N][elsewhere], other.points[chosen_other_N]
            distances[elsewhere] = find_in_tree(points, others, self.spacing_mm).distance
        return distances


def find_nearest(surface: Surface, others: Surface, spacing_mm: Spacing) -> Nearest:
    """Look around every point in steps that grow, then for those that are far from all in a tree."""
    if not len(surface.points) or not len(others.points):
        raise ValueError("wanted two surfaces, got an empty mask, which has none")
    _, height, width = shape = [length + 2 * _REACH for length in surface.shape]
    strides = np.array((height * width, width, 1))
    # At a place in the memory the other point there, counted from 1; 0 is none.
    other_at = np.zeros(math.prod(shape), dtype=np.int32)
    other_at[(others.points + _REACH) @ strides] = np.arange(1, len(others.points) + 1)
    other, distance = np.zeros(len(surface.points), dtype=np.int64), np.zeros(len(surface.points))
    far, places = np.arange(len(surface.points)), (surface.points + _REACH) @ strides
    steps, lengths = near_steps(spacing_mm)
    for step, length in zip(steps @ strides, lengths, strict=True):
        here = other_at[places + step]
        other[far], distance[far] = here, length
        nothing = here == 0
        far, places = far[nothing], places[nothing]
    other -= 1
    if len(far):
        of_far = find_in_tree(surface.points[far], others.points, spacing_mm)
        other[far], distance[far] = of_far.other, of_far.distance
    return Nearest(other=other, distance=distance)


def find_in_tree(points_N3: Points, others_N3: Points, spacing_mm: Spacing) -> Nearest:
    """Look up every point."""
    tree = cKDTree(others_N3 * spacing_mm, leafsize=32, balanced_tree=False, compact_nodes=False)
    other: NDArray[np.int64] = tree.query(points_N3 * spacing_mm)[1]
    return Nearest(other=other, distance=lengths_of(points_N3 - others_N3[other], spacing_mm))


@lru_cache
def near_steps(spacing_mm: Spacing) -> tuple[Points, Distances]:
    """All steps on the lattice that are shorter than any which leaves the cube of _REACH, the shortest first."""
    sides = np.arange(-_REACH, _REACH + 1)
    steps = np.stack(np.meshgrid(sides, sides, sides, indexing="ij"), axis=-1).reshape(-1, 3)
    lengths = lengths_of(steps, spacing_mm)
    near = np.argsort(lengths, kind="stable")[: np.count_nonzero(lengths < (_REACH + 1) * min(spacing_mm))]
    return steps[near], lengths[near]


def lengths_of(steps_N3: Points, spacing_mm: Spacing) -> Distances:
    """How long steps on the lattice are, to the bit as a distance transform says."""
    depth, height, width = np.square(steps_N3 * spacing_mm).T
    lengths: Distances = np.sqrt(depth + height + width)
    return lengths


def weighted_hd95(distances: SurfaceDistances) -> float:
    """The larger of the distances within which 95 % of either surface's area lies (DeepMind's robust Hausdorff)."""
    return max(
        _within(distances.from_predicted, distances.predicted_weights),
        _within(distances.from_true, distances.true_weights),
    )


def _within(distances: Distances, weights: NDArray[np.float64]) -> float:
    order = np.lexsort((weights, distances))
    share = np.cumsum(weights[order]) / np.sum(weights[order])
    return float(distances[order][min(int(np.searchsorted(share, 0.95)), len(order) - 1)])


def pooled_hd95(distances: SurfaceDistances) -> float:
    """The 95th percentile of both directions together (MedPy's)."""
    return float(np.percentile(np.hstack((distances.from_predicted, distances.from_true)), 95))


def larger_hd95(distances: SurfaceDistances) -> float:
    """The larger of the 95th percentiles of the two directions (MONAI's)."""
    return max(float(np.percentile(one, 95)) for one in (distances.from_predicted, distances.from_true))


def surface_dice(distances: SurfaceDistances, *, tolerance: float) -> float:
    """The mean of the shares of the two surfaces that lie within the tolerance (mm) of the other one."""
    shares = [np.count_nonzero(one <= tolerance) / len(one) for one in (distances.from_predicted, distances.from_true)]
    return sum(shares) / 2
