"""From probabilities of nested regions to masks that are nested: thresholds, the overlap rule, small components.

Each region is cut at its own threshold, so the masks need not be nested: a voxel may pass ET's and fail WT's.

inner   the innermost region that a voxel passes decides: it is in all regions around it as well. ET is what its
        threshold was chosen for; TC and WT may grow. (The order in which nnU-Net writes its regions.)
outer   the outermost region decides: a voxel that fails WT is in none, one that fails TC is not in ET. WT is what its
        threshold was chosen for; TC and ET may shrink.

Letters in names: R region from the outermost to the innermost, D H W voxels z y x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from models.config import OverlapRule

_CORNERS_TOUCH = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, kw_only=True)
class RegionRules:
    """How probabilities become nested masks."""

    thresholds: tuple[float, ...]
    """A voxel is in a region where its probability is at least this, compared in float32."""
    overlap: OverlapRule = "inner"
    smallest_mm3: tuple[float, ...] | None = None
    """Per region: connected components (26 neighbours) smaller than this are left out. An outer component takes
    along what lies in it; what an inner one leaves behind belongs to the region around it."""


def segment_regions(
    probabilities_RDHW: Tensor, rules: RegionRules, *, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> NDArray[np.bool_]:
    """Masks regions_RDHW on the CPU, each within the one before. spacing_mm: voxel sides along D, H, W.

    Raises ValueError where the rules are of another number of regions.
    """
    regions = len(probabilities_RDHW)
    sizes = rules.smallest_mm3 or (0.0,) * regions
    if len(rules.thresholds) != regions or len(sizes) != regions:
        raise ValueError(
            f"wanted rules for {regions} regions, got {len(rules.thresholds)} thresholds, {len(sizes)} sizes"
        )
    cuts = torch.tensor(rules.thresholds, dtype=torch.float32, device=probabilities_RDHW.device)
    masks_RDHW: NDArray[np.bool_] = (probabilities_RDHW.float() >= cuts.reshape(-1, 1, 1, 1)).cpu().numpy()
    if rules.overlap == "inner":
        for region in range(regions - 2, -1, -1):
            masks_RDHW[region] |= masks_RDHW[region + 1]
    voxel_mm3 = float(np.prod(spacing_mm))
    for region in range(regions):
        if region:
            masks_RDHW[region] &= masks_RDHW[region - 1]
        if sizes[region] > 0:
            masks_RDHW[region] = _without_small(masks_RDHW[region], sizes[region] / voxel_mm3)
    return masks_RDHW


def _without_small(mask_DHW: NDArray[np.bool_], smallest_voxels: float) -> NDArray[np.bool_]:
    components_DHW, _ = ndimage.label(mask_DHW, _CORNERS_TOUCH)
    sizes = np.bincount(components_DHW.ravel())
    # A volume that is exactly the smallest may come out a rounding above it.
    large = sizes >= smallest_voxels * (1 - 1e-9)
    large[0] = False
    kept: NDArray[np.bool_] = large[components_DHW]
    return kept
