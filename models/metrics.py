"""Scores of one case's segmentation, per region.

Conventions for empty regions (BraTS): empty in truth and prediction scores 1 (HD95: 0 mm); empty in one of them 0
(HD95: 374 mm). Sensitivity without a positive voxel and precision without a predicted one are 1 where
the other mask is empty as well and 0 where it isn't.
Letters in names: R region, D H W voxels z y x.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.distances import hausdorff95
from models.lesions import LesionRules, score_lesions
from models.thresholds import divide_or_one


@dataclass(frozen=True, kw_only=True)
class CaseScores:
    """One case's scores, a number for each region; distances in mm, None where they weren't asked for."""

    iou: tuple[float, ...]
    dice: tuple[float, ...]
    sensitivity: tuple[float, ...]
    precision: tuple[float, ...]
    hd95: tuple[float, ...] | None = None
    lesion_dice: tuple[float, ...] | None = None
    lesion_hd95: tuple[float, ...] | None = None


def score_overlap(predicted_RDHW: Tensor, regions_RDHW: Tensor) -> CaseScores:
    """IoU, Dice, sensitivity and precision of masks (non-zero = inside), counted on their device.

    Raises ValueError when shapes disagree.
    """
    if predicted_RDHW.shape != regions_RDHW.shape:
        raise ValueError(
            f"wanted masks of one shape, got {tuple(predicted_RDHW.shape)} and {tuple(regions_RDHW.shape)}"
        )
    predicted, present = (predicted_RDHW != 0).flatten(1), (regions_RDHW != 0).flatten(1)
    hits_R, predicted_R, present_R = (predicted & present).sum(1), predicted.sum(1), present.sum(1)
    either_R = predicted_R + present_R
    nothing_R = (either_R == 0).double()
    return CaseScores(
        iou=_numbers(divide_or_one(hits_R, either_R - hits_R)),
        dice=_numbers(divide_or_one(2 * hits_R, either_R)),
        sensitivity=_numbers(torch.where(present_R == 0, nothing_R, divide_or_one(hits_R, present_R))),
        precision=_numbers(torch.where(predicted_R == 0, nothing_R, divide_or_one(hits_R, predicted_R))),
    )


def score_case(
    predicted_RDHW: Tensor,
    regions_RDHW: Tensor,
    *,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    lesion_rules: LesionRules | None = None,
) -> CaseScores:
    """All of `CaseScores`; distances and lesions on the CPU. spacing_mm: voxel sides along D, H, W."""
    overlap = score_overlap(predicted_RDHW, regions_RDHW)
    pairs = list(zip((predicted_RDHW != 0).cpu().numpy(), (regions_RDHW != 0).cpu().numpy(), strict=True))
    lesions = [score_lesions(*pair, spacing_mm=spacing_mm, rules=lesion_rules) for pair in pairs]
    return replace(
        overlap,
        hd95=tuple(hausdorff95(*pair, spacing_mm=spacing_mm) for pair in pairs),
        lesion_dice=tuple(score.dice for score in lesions),
        lesion_hd95=tuple(score.hd95 for score in lesions),
    )


def _numbers(values_R: Tensor) -> tuple[float, ...]:
    return tuple(values_R.tolist())
