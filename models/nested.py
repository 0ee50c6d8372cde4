"""Regions that nest or exclude each other as mutually exclusive labels, and back.

Each region holds some of the labels 1 to L (`UNetConfig.region_labels`), and label 0 is the background. Where nothing
else is said every region lies within the one before: label k of R is "in region k and not in region k + 1". A network
with a labels head gives L log-odds against the background, whose own log-odds are 0.
Letters in names: B batch, R region, L labels without the background, Z = L + 1 with the background first.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.region_forest import RegionLabels, left_over_labels, nested_labels, outermost_first


def with_background(label_logits_BL: Tensor) -> Tensor:
    """Float32 logits_BZ: a zero for the background before the labels'."""
    return functional.pad(label_logits_BL.float(), (0, 0) * (label_logits_BL.ndim - 2) + (1, 0))


def region_logits_from_label_logits(label_logits_BL: Tensor, region_labels: RegionLabels | None = None) -> Tensor:
    """Float32 logits_BR whose sigmoid is each region's probability: the sum of its labels' in the softmax."""
    logits_BZ = with_background(label_logits_BL)
    # A region's labels follow one another. Slices of them copy nothing, and need no index on the device.
    spans = [(labels[0], labels[-1] + 1) for labels in region_labels or nested_labels(label_logits_BL.shape[1])]
    inside = [torch.logsumexp(logits_BZ[:, first:behind], dim=1) for first, behind in spans]
    outside = [_logsumexp_outside(logits_BZ, first, behind) for first, behind in spans]
    return torch.stack(inside, dim=1) - torch.stack(outside, dim=1)


def labels_from_regions(regions_BR: Tensor, region_labels: RegionLabels | None = None) -> Tensor:
    """int64 labels_B…: of each voxel that of the innermost region it lies in."""
    if region_labels is None:
        return regions_BR.sum(dim=1, dtype=torch.int64)
    left_over = left_over_labels(region_labels)
    labels_B = torch.zeros_like(regions_BR[:, 0], dtype=torch.int64)
    for region in outermost_first(region_labels):
        labels_B.masked_fill_(regions_BR[:, region] != 0, left_over[region])
    return labels_B


def _logsumexp_outside(logits_BZ: Tensor, first: int, behind: int) -> Tensor:
    before_B = torch.logsumexp(logits_BZ[:, :first], dim=1)
    if behind == logits_BZ.shape[1]:
        return before_B
    return torch.logaddexp(before_B, torch.logsumexp(logits_BZ[:, behind:], dim=1))
