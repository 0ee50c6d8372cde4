"""Nested regions (WT ⊇ TC ⊇ ET) as mutually exclusive labels, and back.

Label k of R, counted from 1, is "in region k and not in region k + 1"; label 0 is the background. A network with a
labels head gives R log-odds against the background, whose own log-odds are 0.
Letters in names: B batch, R region, L = R + 1 labels with the background first.
"""

import torch
from torch import Tensor
from torch.nn import functional


def with_background(label_logits_BR: Tensor) -> Tensor:
    """Float32 logits_BL: a zero for the background before the R labels'."""
    return functional.pad(label_logits_BR.float(), (0, 0) * (label_logits_BR.ndim - 2) + (1, 0))


def region_logits_from_label_logits(label_logits_BR: Tensor) -> Tensor:
    """Float32 logits_BR whose sigmoid is each region's probability: the sum of its labels' in the softmax."""
    logits_BL = with_background(label_logits_BR)
    count = label_logits_BR.shape[1]
    inside = [torch.logsumexp(logits_BL[:, region + 1 :], dim=1) for region in range(count)]
    outside = [torch.logsumexp(logits_BL[:, : region + 1], dim=1) for region in range(count)]
    return torch.stack(inside, dim=1) - torch.stack(outside, dim=1)


def labels_from_regions(regions_BR: Tensor) -> Tensor:
    """int64 labels_B…: how many of the nested regions a voxel lies in."""
    return regions_BR.sum(dim=1, dtype=torch.int64)
