"""One region of one case without any year's ways.

Letters in names: D H W voxels z y x.
"""

import math
from collections.abc import Sequence

import numpy as np

from scoring.border_voxels import border_voxels
from scoring.components import Mask, number_components
from scoring.matched_lesions import count_matches, match_lesions
from scoring.scores import Scores, Spacing, count_scores
from scoring.surface import SurfacePair, larger_hd95, surface_dice
from scoring.whole_case import count

TOLERANCE_MM = 1.0


def score_plain(predicted_DHW: Mask, true_DHW: Mask, *, spacing_mm: Spacing, grid: Sequence[int]) -> Scores:
    """The region's scores. The masks may be cut from a grid of that shape.

    Distances are NaN where one mask is empty: no number stands for them.
    """
    predicted, true = number_components(predicted_DHW), number_components(true_DHW)
    lesions = match_lesions(predicted, true)
    found = sum(lesion.predicted is not None for lesion in lesions)
    false = int(predicted.max()) - found
    scores = count_scores(count(predicted_DHW, true_DHW, everywhere=int(np.prod(grid))), spacing_mm)
    borders = SurfacePair(
        predicted=border_voxels(predicted_DHW, predicted), true=border_voxels(true_DHW, true), spacing_mm=spacing_mm
    )
    if lesions and predicted.any():
        distances = borders.whole
        scores |= {"hd95": larger_hd95(distances), "surface_dice": surface_dice(distances, tolerance=TOLERANCE_MM)}
    else:
        empty = not lesions and not predicted.any()
        scores |= {"hd95": 0.0 if empty else math.nan, "surface_dice": float(empty)}
    parts = len(lesions) + false
    scores["lesion_dice"] = sum(lesion.dice for lesion in lesions) / parts if parts else 1.0
    matched = [
        borders.between((lesion.predicted,), (lesion.true,)) for lesion in lesions if lesion.predicted is not None
    ]
    close = sum(surface_dice(distances, tolerance=TOLERANCE_MM) for distances in matched)
    scores["lesion_surface_dice"] = close / parts if parts else 1.0
    hd95 = [larger_hd95(distances) for distances in matched]
    scores["lesion_hd95"] = float(np.mean(hd95)) if hd95 else math.nan
    return scores | count_matches("lesions", found, len(lesions) - found, false, nothing=1.0)
