"""The BraTS 2023 lesion-wise Dice and HD95 of one region, written from their description.

Lesions of the truth that a small dilation joins count as one; each is compared with all predicted components that
touch its dilation. Lesions without any, and predicted components that touch no lesion, score as badly as can be.
Source: the challenge's evaluation (synapse.org syn51156910, R. Saluja's "lesion-wise" announcement) and the script it
names, github.com/rachitsaluja/BraTS-2023-Metrics. The script weighs HD95 by surface area; ours is `hausdorff95`.
Letters in names: D H W voxels z y x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from models.distances import WORST_DISTANCE_MM, Mask, hausdorff95

_CORNERS_TOUCH = np.ones((3, 3, 3), dtype=bool)
_EDGES_TOUCH = ndimage.generate_binary_structure(3, 2)


# BraTS 2023's numbers for adult glioma. Lesions this close on either side are one, and predictions this close belong to
# a lesion; lesions of the truth up to this volume aren't scored, nor are predictions that touch them spurious.
_DILATION_VOXELS = 3
_SMALLEST_MM3 = 50.0


@dataclass(frozen=True, kw_only=True)
class LesionScores:
    """dice and hd95 (mm): means over scored lesions and spurious components, 1 and 0 where there are none."""

    dice: float
    hd95: float
    found: int
    missed: int
    spurious: int


def score_lesions(
    predicted_DHW: Mask, present_DHW: Mask, *, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> LesionScores:
    """Score one region of one case, lesion by lesion."""
    if not (predicted_DHW.any() or present_DHW.any()):
        return LesionScores(dice=1.0, hd95=0.0, found=0, missed=0, spurious=0)
    box = ndimage.find_objects((predicted_DHW | present_DHW).astype(np.uint8))[0]
    predicted, present = (np.pad(mask[box], _DILATION_VOXELS) for mask in (predicted_DHW, present_DHW))
    components, component_count = ndimage.label(predicted, _CORNERS_TOUCH)
    near = ndimage.binary_dilation(present, _EDGES_TOUCH, iterations=_DILATION_VOXELS)
    zones, zone_count = ndimage.label(near, _CORNERS_TOUCH)
    voxel_mm3 = float(np.prod(spacing_mm))
    touching: set[int] = set()
    dice: list[float] = []
    distances: list[float] = []
    found = 0
    for zone in range(1, zone_count + 1):
        in_zone = zones == zone
        # A lesion's dilation is its zone: dilations of other lesions would have joined it.
        lesion = present & in_zone
        matched = {int(component) for component in np.unique(components[in_zone])} - {0}
        touching |= matched
        if np.count_nonzero(lesion) * voxel_mm3 <= _SMALLEST_MM3:
            continue
        found += bool(matched)
        match = np.isin(components, list(matched))
        dice.append(2 * np.count_nonzero(lesion & match) / (np.count_nonzero(lesion) + np.count_nonzero(match)))
        distances.append(hausdorff95(match, lesion, spacing_mm=spacing_mm))
    missed, spurious = len(dice) - found, component_count - len(touching)
    parts = len(dice) + spurious
    return LesionScores(
        dice=sum(dice) / parts if parts else 1.0,
        hd95=(sum(distances) + spurious * WORST_DISTANCE_MM) / parts if parts else 0.0,
        found=found,
        missed=missed,
        spurious=spurious,
    )
