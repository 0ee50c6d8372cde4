"""All regions of one case by the rules of 2023 to 2025.

Letters in names: D H W voxels z y x.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache

import numpy as np

from scoring.border_voxels import border_voxels
from scoring.components import Mask, find_box
from scoring.near_lesions import (
    Lesions,
    at_tolerances,
    average,
    compare_lesions,
    find_predicted,
    find_true,
    join_through,
)
from scoring.rules import NearRules
from scoring.scores import Scores, Spacing, count_scores
from scoring.surface import SurfacePair, weighted_hd95
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
        predicted_mask, true_mask = masks_of(name)
        box = find_box(predicted_mask | (true.zones > 0), 0)
        masks = predicted_mask[box], true_mask[box]
        scores[name] = _score_region(*masks, predicted.cut(box), true.cut(box), own, spacing_mm=spacing_mm, grid=grid)
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
    elements = SurfacePair(
        predicted=surface_elements(predicted_DHW, predicted.numbers, spacing_mm=spacing_mm),
        true=surface_elements(true_DHW, true.numbers, spacing_mm=spacing_mm),
        spacing_mm=spacing_mm,
    )
    borders = SurfacePair(
        predicted=border_voxels(predicted_DHW, predicted.numbers),
        true=border_voxels(true_DHW, true.numbers),
        spacing_mm=spacing_mm,
    )
    lesions, false = compare_lesions(predicted, true, elements, borders, rules, penalty_mm=penalty)
    means = average(lesions, false, rules, penalty_mm=penalty)
    scores = count_scores(count(predicted_DHW, true_DHW, everywhere=int(np.prod(grid))), spacing_mm)
    empty = _empty_masks(predicted_DHW, true_DHW)
    scores["hd95"] = 0.0 if empty == 2 else penalty if empty else weighted_hd95(elements.whole)
    scores |= _surface_dice("surface_dice", borders, rules, empty)
    if rules.joins_predicted:
        kept = predicted.numbers > 0
        scores["kept_dice"] = count(kept, true_DHW, everywhere=0).dice
        numbers = range(1, int(predicted.numbers.max()) + 1)
        scores |= _surface_dice("kept_surface_dice", borders, rules, _empty_masks(kept, true_DHW), numbers)
    scores |= {"lesion_dice": means.dice, "lesion_hd95": means.hd95}
    scores |= _by_tolerance("lesion_surface_dice", rules, means.surface_dice)
    counts = {"found": means.found, "missed": means.missed, "false": means.false}
    return scores | {f"lesions_{name}": number for name, number in counts.items()}


def _empty_masks(predicted_DHW: Mask, true_DHW: Mask) -> int:
    return 2 - int(predicted_DHW.any()) - int(true_DHW.any())


def _surface_dice(
    name: str, borders: SurfacePair, rules: NearRules, empty: int, kept: Collection[int] | None = None
) -> Scores:
    """Of a whole true mask and the predicted one or the kept lesions of it; 1 where both are empty, 0 where one is."""
    if empty or not rules.tolerances_mm:
        return _by_tolerance(name, rules, [float(empty == 2)] * len(rules.tolerances_mm))
    distances = borders.whole if kept is None else borders.between(kept, np.unique(borders.true.component).tolist())
    return _by_tolerance(name, rules, at_tolerances(distances, rules))


def _by_tolerance(name: str, rules: NearRules, shares: Sequence[float]) -> Scores:
    return {f"{name}_{tolerance}": share for tolerance, share in zip(rules.tolerances_mm, shares, strict=True)}
