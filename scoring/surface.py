"""Points of a surface, and the distances between the surfaces of a whole case and of its lesions.

Every point's nearest one on the other surface is looked up once, in a tree. It serves for a lesion too where it belongs
to the lesion's match. Distances are then computed as a distance transform does, so that they are the same to the bit.
Letters in names: N points.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scoring.scores import Spacing

Distances = NDArray[np.float64]
Chosen = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """points: places on a lattice, N x 3; weights: the area of each; component: the number of what it belongs to."""

    points: NDArray[np.int64]
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
class SurfacePair:
    """The surfaces of a predicted and of a true mask."""

    predicted: Surface
    true: Surface
    spacing_mm: Spacing

    @property
    def whole(self) -> SurfaceDistances:
        """Between the masks; raises ValueError where one is empty."""
        return self._measure(np.ones(len(self.predicted.points), bool), np.ones(len(self.true.points), bool))

    def between(self, predicted: Collection[int], true: Collection[int]) -> SurfaceDistances:
        """Between some components of the one and some of the other; raises ValueError where that is nothing."""
        return self._measure(self.predicted.of(predicted), self.true.of(true))

    def _measure(self, predicted_N: Chosen, true_N: Chosen) -> SurfaceDistances:
        return SurfaceDistances(
            from_predicted=self._nearest(self.predicted, predicted_N, self.true, true_N, self._true_of_predicted),
            from_true=self._nearest(self.true, true_N, self.predicted, predicted_N, self._predicted_of_true),
            predicted_weights=self.predicted.weights[predicted_N],
            true_weights=self.true.weights[true_N],
        )

    @cached_property
    def _true_of_predicted(self) -> NDArray[np.int64]:
        return self._look_up(self.predicted.points, self.true.points)

    @cached_property
    def _predicted_of_true(self) -> NDArray[np.int64]:
        return self._look_up(self.true.points, self.predicted.points)

    def _look_up(self, points_N3: NDArray[np.int64], others_N3: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of every point the index of the nearest other one."""
        if not len(points_N3) or not len(others_N3):
            raise ValueError("wanted two surfaces, got an empty mask, which has none")
        tree = cKDTree(others_N3 * self.spacing_mm, leafsize=32, balanced_tree=False, compact_nodes=False)
        nearest: NDArray[np.int64] = tree.query(points_N3 * self.spacing_mm)[1]
        return nearest

    def _nearest(
        self, surface: Surface, chosen_N: Chosen, other: Surface, chosen_other_N: Chosen, of_whole_N: NDArray[np.int64]
    ) -> Distances:
        nearest = of_whole_N[chosen_N]
        points = surface.points[chosen_N]
        elsewhere = ~chosen_other_N[nearest]
        if elsewhere.any():
            others = np.flatnonzero(chosen_other_N)
            nearest[elsewhere] = others[self._look_up(points[elsewhere], other.points[others])]
        steps = (points - other.points[nearest]) * self.spacing_mm
        depth, height, width = (steps * steps).T
        distances: Distances = np.sqrt(depth + height + width)
        return distances


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
