"""From probabilities of regions to one label a voxel: a decision's thresholds, the overlap rules, what is left out.

Each region is cut at its own threshold, so the masks need not fit together: a voxel may pass an inner region's and fail
that of the region around it, or pass those of two regions that exclude each other.

inner   the innermost region that a voxel passes decides: it is in all regions around it as well. The innermost region
        is what its threshold was chosen for; those around it may grow. (The order in which nnU-Net writes its regions.)
outer   the outermost region decides: a voxel that fails it is in none of those within. The outermost region is what its
        threshold was chosen for; those within may shrink.

Of regions that exclude each other (those with one parent, and those with none) the one further above its threshold has
the voxel, of equals the first. Under `inner` a region is as far above as the furthest that it holds and that passes.

Letters in names: R region, D H W voxels z y x.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.components import ROUNDING, number_components
from models.config import OverlapRule
from models.decision import Decision
from models.region_forest import RegionLabels, find_parents, find_tumour, left_over_labels, outermost_first


@dataclass(frozen=True, kw_only=True)
class RegionRules(Decision):
    """How probabilities become labels: a decision, for regions of known labels.

    What an inner component leaves behind belongs to the region around it. Raises ValueError for regions that are no
    forest (region_forest.py).
    """

    labels: RegionLabels
    """Of each region. What no inner region takes of one gets the label of it that lies in the fewest regions."""
    overlap: OverlapRule = "inner"

    def __post_init__(self) -> None:
        find_parents(self.labels)


def segment_regions(
    probabilities_RDHW: Tensor, rules: RegionRules, *, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> NDArray[np.uint8]:
    """label_DHW on the CPU, 0 outside all regions. spacing_mm: voxel sides along D, H, W.

    Raises ValueError where the rules are of another number of regions.
    """
    regions = len(probabilities_RDHW)
    of_rules = (len(rules.thresholds), len(rules.smallest), len(rules.empty_below))
    if {regions, len(rules.labels), *of_rules} != {regions}:
        raise ValueError(
            f"wanted rules for {regions} regions, got labels of {len(rules.labels)}, {of_rules[0]} thresholds, "
            f"{of_rules[1]} and {of_rules[2]} sizes"
        )
    masks_RDHW: NDArray[np.bool_] = _decide(probabilities_RDHW.float(), rules).cpu().numpy()
    parents, left_over = find_parents(rules.labels), left_over_labels(rules.labels)
    label_DHW = np.zeros(masks_RDHW.shape[1:], np.uint8)
    voxel_mm3, tumour = float(np.prod(spacing_mm)), find_tumour(rules.labels)
    for region in outermost_first(rules.labels):
        mask_DHW, parent = masks_RDHW[region], parents[region]
        if parent is not None:
            mask_DHW &= masks_RDHW[parent]
        _leave_out(
            mask_DHW,
            smallest=rules.smallest[region] / voxel_mm3,
            largest_only=rules.largest_tumour_only and region == tumour,
            empty_below=rules.empty_below[region] / voxel_mm3,
        )
        np.putmask(label_DHW, mask_DHW, left_over[region])
    return label_DHW


def _decide(probabilities_RDHW: Tensor, rules: RegionRules) -> Tensor:
    """Masks in which no voxel is in two regions that exclude each other, nor under `inner` outside one around it."""
    cuts_R = torch.tensor(rules.thresholds, dtype=torch.float32, device=probabilities_RDHW.device)
    cuts_R111 = cuts_R.reshape(-1, 1, 1, 1)
    # How far above its threshold a region is; where it fails, as it does for NaN, it is infinitely far below.
    above_RDHW = (probabilities_RDHW - cuts_R111).masked_fill_(~(probabilities_RDHW >= cuts_R111), -torch.inf)
    parents = find_parents(rules.labels)
    if rules.overlap == "inner":
        for region in reversed(outermost_first(rules.labels)):
            if (parent := parents[region]) is not None:
                above_RDHW[parent] = torch.maximum(above_RDHW[parent], above_RDHW[region])
    masks_RDHW = above_RDHW > -torch.inf
    for parent in {*parents}:
        rivals = [region for region, its_parent in enumerate(parents) if its_parent == parent]
        if len(rivals) > 1:
            # Not argmax, which along the outermost axis costs a CPU several times as much.
            furthest_DHW = functools.reduce(torch.maximum, (above_RDHW[region] for region in rivals))
            free_DHW = torch.ones_like(masks_RDHW[0])
            for region in rivals:  # of equals the first
                masks_RDHW[region] &= (above_RDHW[region] == furthest_DHW).logical_and_(free_DHW)
                free_DHW &= ~masks_RDHW[region]
    return masks_RDHW


def _leave_out(mask_DHW: NDArray[np.bool_], *, smallest: float, largest_only: bool, empty_below: float) -> None:
    """Take out of a mask, in place, what a decision leaves out; sizes in voxels."""
    if (smallest > 0 or largest_only) and mask_DHW.any():
        numbers, box = number_components(mask_DHW)
        sizes = np.bincount(numbers.ravel())
        sizes[0] = 0
        kept = sizes >= max(smallest * ROUNDING, 1)
        if largest_only:
            kept &= np.arange(len(sizes)) == sizes.argmax()
        mask_DHW[box] = kept[numbers]
    if empty_below > 0 and mask_DHW.sum() < empty_below * ROUNDING:
        mask_DHW[:] = False
