"""One region of one case by the rules of 2026.

Letters in names: D H W voxels z y x.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scoring.border_voxels import border_voxels
from scoring.components import Mask, number_components
from scoring.matched_lesions import (
    LEAST_DICE,
    PENALTY_MM,
    LesionMatch,
    count_matches,
    match_lesions,
    mean_and_spread,
)
from scoring.rules import MatchedRules
from scoring.scores import Scores, Spacing, count_scores
from scoring.surface import SurfacePair, pooled_hd95, surface_dice
from scoring.whole_case import count, in_mm3

LesionScores = tuple[float, float, float]
_LESION_SCORES = ("lesion_dice", "lesion_hd95", "lesion_surface_dice")
# The scores of a lesion that was missed or is false.
_WORST = (0.0, PENALTY_MM, 0.0)
_VOXELS = (1.0, 1.0, 1.0)
_VOXEL_TOLERANCE = 0.5


def score_matched(
    predicted_DHW: Mask, true_DHW: Mask, rules: MatchedRules, *, spacing_mm: Spacing, grid: Sequence[int]
) -> Scores:
    """The region's scores. The masks may be cut from a grid of that shape."""
    predicted, true = number_components(predicted_DHW), number_components(true_DHW)
    lesions = match_lesions(predicted, true)
    # The program measures whole masks in voxels, and lesions with the sides of voxels in the wrong order, x for z.
    in_voxels = SurfacePair(
        predicted=border_voxels(predicted_DHW, predicted), true=border_voxels(true_DHW, true), spacing_mm=_VOXELS
    )
    borders = in_voxels if spacing_mm == _VOXELS else replace(in_voxels, spacing_mm=spacing_mm[::-1])
    found = sum(lesion.predicted is not None for lesion in lesions)
    false = int(predicted.max()) - found
    empty = not lesions and not false
    scores = count_scores(count(predicted_DHW, true_DHW, everywhere=int(np.prod(grid))), spacing_mm)
    scores |= _whole_case(in_voxels, found=found, empty=empty, dice=scores["dice"])
    scores |= count_matches("lesions", found, len(lesions) - found, false, nothing=math.nan)
    matched = _score_matched(lesions, borders)
    # What is missed or false does not lower these.
    means = _means(list(matched.values()), (math.nan, math.nan, math.nan) if empty else (0.0, math.inf, 0.0))
    if rules.large_mm3 is None:
        return scores | means
    scores |= {f"matched_{name}": score for name, score in means.items()}
    return scores | _of_large(lesions, matched, spacing_mm, large_mm3=rules.large_mm3, false=false)


def _whole_case(borders: SurfacePair, *, found: int, empty: bool, dice: float) -> Scores:
    """Of whole masks, which the program measures only where some lesion is found."""
    if empty:
        return dict.fromkeys(("dice", "hd95_voxels", "surface_dice_voxels"), math.nan)
    if not found:
        return {"dice": 0.0, "hd95_voxels": PENALTY_MM, "surface_dice_voxels": 0.0}
    distances = borders.whole
    return {
        "dice": dice,
        "hd95_voxels": pooled_hd95(distances),
        "surface_dice_voxels": surface_dice(distances, tolerance=_VOXEL_TOLERANCE),
    }


def _of_large(
    lesions: Sequence[LesionMatch],
    matched: Mapping[int, LesionScores],
    spacing_mm: Spacing,
    *,
    large_mm3: float,
    false: int,
) -> Scores:
    """Counts of small and of large lesions, and means over the large ones and all false ones."""
    scores: Scores = {}
    of_large: list[LesionScores] = []
    for name in ("small", "large"):
        chosen = [lesion for lesion in lesions if (in_mm3(lesion.voxels, spacing_mm) >= large_mm3) == (name == "large")]
        hits = [lesion for lesion in chosen if lesion.predicted is not None and lesion.dice >= LEAST_DICE]
        counted = count_matches(f"{name}_lesions", len(hits), len(chosen) - len(hits), false, nothing=0.0)
        scores |= counted if chosen else dict.fromkeys(counted, math.nan)
        if name == "large" and chosen:
            of_large = [matched.get(lesion.true, _WORST) for lesion in chosen] + [_WORST] * false
    return scores | _means(of_large, (math.nan, math.nan, math.nan))


def _score_matched(lesions: Sequence[LesionMatch], borders: SurfacePair) -> dict[int, LesionScores]:
    """The scores of every matched lesion, by its number."""
    scores = {}
    for lesion in lesions:
        if lesion.predicted is not None:
            distances = borders.between((lesion.predicted,), (lesion.true,))
            close = surface_dice(distances, tolerance=min(borders.spacing_mm))
            scores[lesion.true] = (lesion.dice, pooled_hd95(distances), close)
    return scores


def _means(lesions: Sequence[LesionScores], nothing: LesionScores) -> Scores:
    scores: Scores = {}
    for at, name in enumerate(_LESION_SCORES):
        scores |= mean_and_spread(name, [lesion[at] for lesion in lesions], nothing=nothing[at])
    return scores
