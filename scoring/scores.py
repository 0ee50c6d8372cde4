"""What a region's scores are, by name, and those that follow from counts of voxels."""

from scoring.whole_case import VoxelCounts, in_mm3

Spacing = tuple[float, float, float]
"""Voxel sides along D, H, W in mm."""

Scores = dict[str, float]
"""A region's scores by name (docs/scores.md says what each is)."""


def count_scores(counts: VoxelCounts, spacing_mm: Spacing) -> Scores:
    """What counts of voxels say."""
    return {
        "dice": counts.dice,
        "iou": counts.iou,
        "sensitivity": counts.sensitivity,
        "specificity": counts.specificity,
        "precision": counts.precision,
        "true_mm3": in_mm3(counts.true, spacing_mm),
        "predicted_mm3": in_mm3(counts.predicted, spacing_mm),
    }
