"""Scores that count the voxels of a whole mask, in which all rules agree but for what an empty mask is given.

Letters in names: D H W voxels z y x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoring.components import Mask


@dataclass(frozen=True, kw_only=True)
class VoxelCounts:
    """Voxels of a predicted mask, of a true one, of both, and of the whole grid."""

    hits: int
    predicted: int
    true: int
    everywhere: int

    @property
    def dice(self) -> float:
        """1 where both masks are empty."""
        return _share(2 * self.hits, self.predicted + self.true)

    @property
    def iou(self) -> float:
        """1 where both masks are empty."""
        return _share(self.hits, self.predicted + self.true - self.hits)

    @property
    def sensitivity(self) -> float:
        """The share of the truth that was predicted; without any truth 1 where nothing was predicted, else 0."""
        return _share(self.hits, self.true, empty=self.predicted == 0)

    @property
    def precision(self) -> float:
        """The share of the prediction that is true; without any prediction 1 where nothing is there, else 0."""
        return _share(self.hits, self.predicted, empty=self.true == 0)

    @property
    def specificity(self) -> float:
        """The share of what is not there that was not predicted; it hangs on the size of the grid."""
        outside = self.everywhere - self.true
        return _share(outside - (self.predicted - self.hits), outside, empty=False)


def count(predicted_DHW: Mask, true_DHW: Mask, *, everywhere: int) -> VoxelCounts:
    """Count two masks of one grid, or of the part of it in which they lie."""
    return VoxelCounts(
        hits=int(np.count_nonzero(predicted_DHW & true_DHW)),
        predicted=int(np.count_nonzero(predicted_DHW)),
        true=int(np.count_nonzero(true_DHW)),
        everywhere=everywhere,
    )


def in_mm3(voxels: int, spacing_mm: Sequence[float]) -> float:
    """The volume of so many voxels, multiplied in the programs' order: x, y, z."""
    depth, height, width = spacing_mm
    return float(voxels) * width * height * depth


def _share(part: int, whole: int, *, empty: bool = True) -> float:
    return part / whole if whole else float(empty)
