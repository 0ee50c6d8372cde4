"""Regions, the overlapping masks that BraTS scores, from labels.

A *label* is a voxel's value and belongs to it alone; a voxel lies in several regions.
Source: Baid et al. 2021, "The RSNA-ASNR-MICCAI BraTS 2021 Benchmark", section 4.

Shapes: D H W are voxels z y x, R is the region.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from storage.labels.tasks import Region


def region_masks(label_DHW: NDArray[np.uint8], regions: Sequence[Region]) -> NDArray[np.uint8]:
    """Stored labels to the overlapping regions: uint8 RDHW of 0 and 1, in the order of `regions`."""
    table = np.zeros((len(regions), 256), dtype=np.uint8)
    for index, region in enumerate(regions):
        table[index, list(region.labels)] = 1
    return np.stack([row[label_DHW] for row in table])
