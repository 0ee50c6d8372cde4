"""Scores of one case's segmentation, per region.

Conventions for empty regions (BraTS): empty in truth and prediction scores 1 (HD95: 0 mm); empty in one of them 0
(HD95: 374 mm).
Letters in names: R region, D H W voxels z y x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from models.distances import hausdorff95
from models.lesions import score_lesions
from models.thresholds import divide_or_one


@dataclass(frozen=True, kw_only=True)
class CaseScores:
    """One case's scores, a number for each region; distances in mm."""

    iou: tuple[float, ...]
    dice: tuple[float, ...]
    hd95: tuple[float, ...]
    lesion_dice: tuple[float, ...]
    lesion_hd95: tuple[float, ...]


def score_case(
    predicted_RDHW: Tensor, regions_RDHW: Tensor, *, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> CaseScores:
    """Scores of masks (non-zero = inside): voxels are counted on their device, distances and lesions on the CPU.

    spacing_mm: voxel sides along D, H, W. Raises ValueError when shapes disagree.
    """
    if predicted_RDHW.shape != regions_RDHW.shape:
        raise ValueError(
            f"wanted masks of one shape, got {tuple(predicted_RDHW.shape)} and {tuple(regions_RDHW.shape)}"
        )
    predicted, present = predicted_RDHW != 0, regions_RDHW != 0
    hits_R, predicted_R, present_R = (mask.flatten(1).sum(1) for mask in (predicted & present, predicted, present))
    either_R = predicted_R + present_R
    pairs = list(zip(predicted.cpu().numpy(), present.cpu().numpy(), strict=True))
    lesions = [score_lesions(*pair, spacing_mm=spacing_mm) for pair in pairs]
    return CaseScores(
        iou=tuple(divide_or_one(hits_R, either_R - hits_R).tolist()),
        dice=tuple(divide_or_one(2 * hits_R, either_R).tolist()),
        hd95=tuple(hausdorff95(*pair, spacing_mm=spacing_mm) for pair in pairs),
        lesion_dice=tuple(score.dice for score in lesions),
        lesion_hd95=tuple(score.hd95 for score in lesions),
    )
