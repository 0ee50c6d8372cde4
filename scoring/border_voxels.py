"""The surface of a mask as its voxels at the border, all alike: MedPy's, MONAI's and the rules of 2026.

Letters in names: D H W voxels z y x.
"""

import numpy as np

from scoring.components import Mask, Numbers
from scoring.surface import Surface


def border_voxels(mask_DHW: Mask, numbers_DHW: Numbers) -> Surface:
    """Voxels with a face neighbour outside the mask; what lies beyond the grid is outside."""
    padded = np.pad(mask_DHW, 1)
    inside = padded[1:-1, 1:-1, 1:-1].copy()
    for axis in range(3):
        for side in (slice(None, -2), slice(2, None)):
            inside &= padded[tuple(side if at == axis else slice(1, -1) for at in range(3))]
    points = np.nonzero(mask_DHW & ~inside)
    return Surface(points=np.stack(points, axis=1), weights=np.ones(len(points[0])), component=numbers_DHW[points])
