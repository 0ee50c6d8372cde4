"""The surface of a mask as its voxels at the border, all alike: MedPy's, MONAI's and the rules of 2026.

Letters in names: D H W voxels z y x.
"""

import numpy as np

from scoring.components import Mask, Numbers
from scoring.surface import Surface


def border_voxels(mask_DHW: Mask, numbers_DHW: Numbers) -> Surface:
    """Voxels with a face neighbour outside the mask; what lies beyond the grid is outside."""
    padded = np.pad(mask_DHW, 1)
    flat, (_, height, width) = padded.ravel(), padded.shape
    first, last = height * width, padded.size - height * width
    inside = flat[first:last].copy()
    for step in (1, width, height * width):
        inside &= flat[first - step : last - step]
        inside &= flat[first + step : last + step]
    border = np.flatnonzero(flat[first:last] & ~inside) + first
    points = np.stack(np.unravel_index(border, padded.shape), axis=1) - 1
    return Surface(
        shape=mask_DHW.shape,
        points=points,
        weights=np.ones(len(points)),
        component=numbers_DHW[tuple(points.T)],
    )
