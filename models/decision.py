"""What turns probabilities into regions, as one value that is chosen once and saved with the model. No PyTorch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

PLAIN_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Thresholds of the regions, then what is left out of each region's mask, in the order of the fields.

    Components touch by a face, an edge or a corner. What is left out of a region takes along what lies in it.
    """

    thresholds: tuple[float, ...]
    """A voxel is in a region where its probability is at least this, compared in float32."""
    smallest_mm3: tuple[float, ...] | None = None
    """Per region: connected components smaller than this are left out."""
    largest_tumour_only: bool = False
    """Of the region with the most labels (the whole tumour) only the largest component is kept; of equals the first."""
    empty_below_mm3: tuple[float, ...] | None = None
    """Per region: what is left of it is left out where that is less than this in all."""

    @classmethod
    def plain(cls, regions: int) -> Self:
        """Everything from 0.5 on: what needs no case to be chosen."""
        return cls(thresholds=(PLAIN_THRESHOLD,) * regions)

    @property
    def smallest(self) -> tuple[float, ...]:
        """Of each region, 0 where nothing is left out."""
        return self.smallest_mm3 or (0.0,) * len(self.thresholds)

    @property
    def empty_below(self) -> tuple[float, ...]:
        """Of each region, 0 where nothing is left out."""
        return self.empty_below_mm3 or (0.0,) * len(self.thresholds)


def join_decisions(decisions: Sequence[Decision]) -> Decision:
    """The decision for the mean of several networks: the mean of their thresholds, and what all of them leave out."""
    each = list(decisions)
    return Decision(
        thresholds=tuple(
            math.fsum(values) / len(each) for values in zip(*(one.thresholds for one in each), strict=True)
        ),
        smallest_mm3=tuple(map(min, zip(*(one.smallest for one in each), strict=True))),
        largest_tumour_only=all(one.largest_tumour_only for one in each),
        empty_below_mm3=tuple(map(min, zip(*(one.empty_below for one in each), strict=True))),
    )
