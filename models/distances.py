"""Distances between the surfaces of two masks, on the CPU.

Letters in names: D H W voxels z y x.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

WORST_DISTANCE_MM = 374.0
"""BraTS's distance for a missed region: the diagonal of its 240 x 240 x 155 mm grid, rounded up."""


def hausdorff95(predicted_DHW: Mask, present_DHW: Mask, *, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)) -> float:
    """95th percentile of the distances between the masks' surface voxels, in mm: the larger of the two directions.

    Surface voxels have a face neighbour outside the mask, or lie at the border. Both masks empty: 0; one of them:
    `WORST_DISTANCE_MM`. The same number as MONAI's compute_hausdorff_distance with percentile=95; other tools pool
    both directions, or weigh by surface area as the BraTS 2023 script does.
    """
    if not predicted_DHW.any() or not present_DHW.any():
        return 0.0 if predicted_DHW.any() == present_DHW.any() else WORST_DISTANCE_MM
    # Distances only matter between the two masks, so everything outside their common box can be left out.
    box = ndimage.find_objects((predicted_DHW | present_DHW).astype(np.uint8))[0]
    surfaces = [_surface(np.pad(mask[box], 1)) for mask in (predicted_DHW, present_DHW)]
    directions = []
    for surface, other in (surfaces, surfaces[::-1]):
        distance = ndimage.distance_transform_edt(~other, sampling=spacing_mm)
        directions.append(float(np.percentile(distance[surface], 95)))
    return max(directions)


def _surface(mask_DHW: Mask) -> Mask:
    inside: Mask = ndimage.binary_erosion(mask_DHW)
    return mask_DHW & ~inside
