"""Regions, the overlapping masks that BraTS scores, from labels and back; the innermost comes last.

A *label* is a voxel's value and belongs to it alone; a voxel lies in several regions.
Source: Baid et al. 2021, "The RSNA-ASNR-MICCAI BraTS 2021 Benchmark", section 4.

Shapes: D H W are voxels z y x, R is the region.
"""

import numpy as np
from numpy.typing import NDArray

from storage.labels.conventions import BACKGROUND, EDEMA, ENHANCING, NECROTIC_CORE

REGIONS = ("WT", "TC", "ET")

REGION_LABELS: dict[str, tuple[int, ...]] = {
    "WT": (NECROTIC_CORE, EDEMA, ENHANCING),
    "TC": (NECROTIC_CORE, ENHANCING),
    "ET": (ENHANCING,),
}


def region_masks(label_DHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stored labels to the overlapping regions: uint8 RDHW of 0 and 1, in the order of `REGIONS`."""
    table = np.zeros((len(REGIONS), 256), dtype=np.uint8)
    for index, region in enumerate(REGIONS):
        table[index, list(REGION_LABELS[region])] = 1
    return np.stack([row[label_DHW] for row in table])


def labels_of_regions(regions_RDHW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Stored labels of regions in the order of REGIONS, of which each lies within the one before."""
    by_depth = np.array([BACKGROUND, EDEMA, NECROTIC_CORE, ENHANCING], dtype=np.uint8)
    labels_DHW: NDArray[np.uint8] = by_depth[regions_RDHW.sum(axis=0, dtype=np.uint8)]
    return labels_DHW
