"""Connected components, and components that count as one because they are near each other.

Numbers follow the order in which a scan of the memory first meets a component, as `cc3d` gives them: D H W in C order
is the order of the organisers' programs, which read NIfTI files as x y z in Fortran order.
Letters in names: D H W voxels z y x.
"""

from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Numbers = NDArray[np.integer[Any]]
"""Of every voxel the number of its component or lesion, from 1; 0 is none."""

NewNumbers = NDArray[np.int64]
"""At the index of an old number the new one, 0 for what is dropped: `new[numbers]` numbers a map anew."""

Box = tuple[slice, ...]


def number_components(mask_DHW: Mask) -> Numbers:
    """Components of voxels that touch by a face, an edge or a corner."""
    # cc3d 4.1.1 gives up where every second voxel up to each border is set; with a border of zeros it never is.
    numbers: Numbers = cc3d.connected_components(np.pad(mask_DHW, 1), connectivity=26)
    return np.ascontiguousarray(numbers[1:-1, 1:-1, 1:-1])


def find_zones(mask_DHW: Mask, voxels: int) -> Numbers:
    """The components of the mask after so many dilations, in each of which what touches by a face or an edge is added.

    Parts of the mask in one zone are one lesion, and the zone is exactly that lesion's own dilation: the dilation of
    another one would have joined it.
    """
    zones = np.zeros(mask_DHW.shape, dtype=np.int64)
    box = find_box(mask_DHW, voxels)
    spread = mask_DHW[box]
    for _ in range(voxels):
        spread = dilate(spread)
    zones[box] = number_components(spread)
    return zones


def dilate(mask_DHW: Mask) -> Mask:
    """The mask with all voxels that touch it by a face or an edge."""
    along_D, along_H = _spread(mask_DHW, 0), _spread(mask_DHW, 1)
    return _spread(along_D, 1) | _spread(along_D, 2) | _spread(along_H, 2)


def _spread(mask_DHW: Mask, axis: int) -> Mask:
    """The mask with its neighbours before and behind along an axis."""
    spread = mask_DHW.copy()
    source, target = mask_DHW.swapaxes(0, axis), spread.swapaxes(0, axis)
    target[1:] |= source[:-1]
    target[:-1] |= source[1:]
    return spread


def count_voxels(numbers_DHW: Numbers) -> NDArray[np.int64]:
    """How many voxels each number has; at index 0 stands 0."""
    return np.bincount(numbers_DHW[numbers_DHW > 0], minlength=1)


def renumber(present: NDArray[np.bool_]) -> NewNumbers:
    """New numbers 1, 2, … for those of the old ones that are present, in their order."""
    present = present.copy()
    present[0] = False
    return np.where(present, np.cumsum(present), 0)


def find_box(mask_DHW: Mask, margin: int) -> Box:
    """The smallest box around the mask with a margin, as far as the grid goes; of an empty mask the first voxel."""
    in_plane = np.any(mask_DHW, axis=0)
    some = (np.any(mask_DHW, axis=(1, 2)), np.any(in_plane, axis=1), np.any(in_plane, axis=0))
    sides = [np.flatnonzero(side) for side in some]
    if not len(sides[0]):
        return tuple(slice(0, 1) for _ in mask_DHW.shape)
    return tuple(slice(max(int(side[0]) - margin, 0), int(side[-1]) + margin + 1) for side in sides)


def pair_numbers(first: Numbers, second: Numbers) -> list[tuple[int, int, int]]:
    """Every pair of numbers that some voxel has in both maps, in their order, and how many voxels have it."""
    both = (first > 0) & (second > 0)
    across = int(second.max(initial=0)) + 1
    pairs, counts = np.unique(first[both].astype(np.int64) * across + second[both], return_counts=True)
    return [(*divmod(pair, across), voxels) for pair, voxels in zip(pairs.tolist(), counts.tolist(), strict=True)]
