"""Connected components of masks: voxels that touch by a face, an edge or a corner. No PyTorch.

Letters in names: D H W voxels z y x.
"""

import cc3d
import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]

# Of sizes that are compared: a volume that is exactly the smallest may come out a rounding above it.
ROUNDING = 1 - 1e-9


def number_components(mask_DHW: NDArray[np.bool_]) -> tuple[NDArray[np.int32], Box]:
    """The components' numbers, from 1 in the order in which a scan meets them, within the box that holds them all."""
    box = find_box(mask_DHW)
    # cc3d gives up where every second voxel up to each border is set; with a border of zeros it never is.
    numbers = cc3d.connected_components(np.pad(mask_DHW[box], 1), connectivity=26)[1:-1, 1:-1, 1:-1]
    return numbers.astype(np.int32), box


def find_box(mask_DHW: NDArray[np.bool_]) -> Box:
    """The smallest box with all of the mask; without a voxel where it is empty."""
    sides = (np.flatnonzero(mask_DHW.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return tuple(slice(side[0], side[-1] + 1) if len(side) else slice(0, 0) for side in sides)
