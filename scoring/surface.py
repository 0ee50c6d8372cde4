"""Points of a surface and the distances between two surfaces.

Distances are looked up from the points of one surface in a tree of the other's, and then computed as a distance
transform does, so that they are the same to the last bit.
Letters in names: N points.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Distances = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """points: places on a lattice, N x 3; weights: the area of each; component: the number of what it belongs to."""

    points: NDArray[np.int64]
    weights: NDArray[np.float64]
    component: NDArray[np.int64]

    def of(self, numbers: Collection[int]) -> "Surface":
        """The surface of these components only."""
        if len(numbers) == 1:
            (only,) = numbers
            chosen = self.component == only
        else:
            chosen = np.isin(self.component, list(numbers))
        return Surface(points=self.points[chosen], weights=self.weights[chosen], component=self.component[chosen])


@dataclass(frozen=True, kw_only=True)
class SurfacePair:
    """The predicted and the true surface."""

    predicted: Surface
    true: Surface

    def of(self, predicted: Collection[int], true: Collection[int]) -> "SurfacePair":
        """The surfaces of some lesions."""
        return SurfacePair(predicted=self.predicted.of(predicted), true=self.true.of(true))


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """From every point of the predicted surface to the nearest of the true one, and the other way, with weights."""

    from_predicted: Distances
    from_true: Distances
    predicted_weights: NDArray[np.float64]
    true_weights: NDArray[np.float64]


def measure(surfaces: SurfacePair, *, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """The distances in both directions, in mm; raises ValueError for a surface without points."""
    predicted, true = surfaces.predicted, surfaces.true
    return SurfaceDistances(
        from_predicted=_nearest(predicted.points, true.points, spacing_mm),
        from_true=_nearest(true.points, predicted.points, spacing_mm),
        predicted_weights=predicted.weights,
        true_weights=true.weights,
    )


def _nearest(points_N3: NDArray[np.int64], others_N3: NDArray[np.int64], spacing_mm: Sequence[float]) -> Distances:
    if not len(points_N3) or not len(others_N3):
        raise ValueError("wanted two surfaces, got an empty mask, which has none")
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    tree = cKDTree(others_N3 * spacing, balanced_tree=False, compact_nodes=False)
    _, nearest = tree.query(points_N3 * spacing)
    steps = (points_N3 - others_N3[nearest]) * spacing
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
    shares = [float(np.mean(one <= tolerance)) for one in (distances.from_predicted, distances.from_true)]
    return sum(shares) / 2
