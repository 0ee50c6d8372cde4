"""All regions of one case by the rules of 2023 to 2025.

Letters in names: D H W voxels z y x.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np

from scoring.border_voxels import border_voxels
from scoring.components import Mask
from scoring.near_lesions import (
    Lesions,
    average,
    compare_lesions,
    find_predicted,
    find_true,
    join_through,
)
from scoring.near_surfaces import NearSurfaces
from scoring.rules import NearRules
from scoring.scores import Scores, Spacing, count_scores
from scoring.surface import SurfacePair
from scoring.surface_elements import surface_elements
from scoring.whole_case import count

MasksOf = Callable[[str], tuple[Mask, Mask]]
"""The predicted and the true mask of a region, by its name."""


def score_near(
    masks_of: MasksOf, rules: Mapping[str, NearRules], *, spacing_mm: Spacing, grid: Sequence[int]
) -> dict[str, Scores]:
    """Every region's scores. The masks may be cut from a grid of that shape, with the widest dilation around them."""

    @cache
    def before_joining(name: str, own: NearRules) -> tuple[Lesions, Lesions]:
        predicted, true = masks_of(name)
        return find_predicted(predicted, own, spacing_mm=spacing_mm), find_true(true, own)

    scores = {}
    for name, own in rules.items():
        others = {other: before_joining(other, rules.get(other, own)) for other in own.joined_through}
        predicted, true = (
            join_through(lesions, own, {other: both[at] for other, both in others.items()})
            for at, lesions in enumerate(before_joining(name, own))
        )
        scores[name] = _score_region(*masks_of(name), predicted, true, own, spacing_mm=spacing_mm, grid=grid)
    return scores


def _score_region(
    predicted_DHW: Mask,
    true_DHW: Mask,
    predicted: Lesions,
    true: Lesions,
    rules: NearRules,
    *,
    spacing_mm: Spacing,
    grid: Sequence[int],
) -> Scores:
    penalty = float(np.linalg.norm(grid)) if rules.penalty_mm is None else rules.penalty_mm
    surfaces = NearSurfaces(
        elements=SurfacePair(
            predicted=surface_elements(predicted_DHW, predicted.numbers, spacing_mm=spacing_mm),
            true=surface_elements(true_DHW, true.numbers, spacing_mm=spacing_mm),
        ),
        borders=SurfacePair(
            predicted=border_voxels(predicted_DHW, predicted.numbers), true=border_voxels(true_DHW, true.numbers)
        )
        if rules.tolerances_mm
        else None,
        spacing_mm=spacing_mm,
    )
    lesions, false = compare_lesions(predicted, true, surfaces, rules, penalty_mm=penalty)
    means = average(lesions, false, rules, penalty_mm=penalty)
    scores = count_scores(count(predicted_DHW, true_DHW, everywhere=int(np.prod(grid))), spacing_mm)
    scores |= _scores_of_masks(predicted_DHW, true_DHW, surfaces, rules, penalty)
    if rules.joins_predicted:
        kept = predicted.numbers > 0
        of_kept = _scores_of_masks(kept, true_DHW, surfaces.of_kept(), rules, penalty)
        del of_kept["hd95"]
        scores["kept_dice"] = count(kept, true_DHW, everywhere=0).dice
        scores |= {f"kept_{name}": score for name, score in of_kept.items()}
    scores |= {"lesion_dice": means.dice, "lesion_hd95": means.hd95}
    scores |= _by_tolerance("lesion_surface_dice", rules, means.surface_dice)
    counts = {"found": means.found, "missed": means.missed, "false": means.false}
    return scores | {f"lesions_{name}": number for name, number in counts.items()}


def _scores_of_masks(
    predicted_DHW: Mask, true_DHW: Mask, surfaces: NearSurfaces, rules: NearRules, penalty_mm: float
) -> Scores:
    """HD95 and surface Dice of whole masks; two empty ones are 0 mm and 1, one is the penalty and 0."""
    if predicted_DHW.any() and true_DHW.any():
        hd95, shares = surfaces.compare(rules)
    else:
        equal = bool(predicted_DHW.any() == true_DHW.any())
        hd95, shares = 0.0 if equal else penalty_mm, tuple(float(equal) for _ in rules.tolerances_mm)
    return {"hd95": hd95, **_by_tolerance("surface_dice", rules, shares)}


def _by_tolerance(name: str, rules: NearRules, shares: Sequence[float]) -> Scores:
    return {f"{name}_{tolerance}": share for tolerance, share in zip(rules.tolerances_mm, shares, strict=True)}
