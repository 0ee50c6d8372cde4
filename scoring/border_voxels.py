"""The surface of a mask as its voxels at the border, all alike: MedPy's, MONAI's and the rules of 2026.

Letters in names: D H W voxels z y x.
"""

import numpy as np
from scipy import ndimage

from scoring.components import Mask, Numbers
from scoring.surface import Surface

_FACES_TOUCH = ndimage.generate_binary_structure(3, 1)


def border_voxels(mask_DHW: Mask, numbers_DHW: Numbers) -> Surface:
    """Voxels with a face neighbour outside the mask; what lies beyond the grid is outside."""
    border = mask_DHW & ~ndimage.binary_erosion(mask_DHW, _FACES_TOUCH)
    points = np.nonzero(border)
    return Surface(points=np.stack(points, axis=1), weights=np.ones(len(points[0])), component=numbers_DHW[points])
