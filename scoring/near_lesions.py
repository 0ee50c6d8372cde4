"""Lesion-wise scores of 2023 to 2025: what the dilation of a true lesion touches is its prediction.

Written from the description of the challenge's evaluation and from what its programs print (docs/scores.md).
Letters in names: D H W voxels z y x.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scoring.components import (
    Box,
    Mask,
    Numbers,
    count_voxels,
    find_zones,
    number_components,
    pair_numbers,
    renumber,
)
from scoring.joining import join_by_neighbour
from scoring.rules import NearRules
from scoring.surface import SurfaceDistances, SurfacePair, surface_dice, weighted_hd95
from scoring.whole_case import in_mm3

# To the sum of all shares, so that equal masks have a little less than 1.
_ADDED = 1e-8


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Lesions of one mask: `numbers` of its own voxels, `zones` of those within the dilation too."""

    numbers: Numbers
    zones: Numbers

    def renumbered(self, new: Numbers) -> "Lesions":
        """With other numbers, which may be the same for several."""
        return Lesions(numbers=new[self.numbers], zones=new[self.zones])

    def cut(self, box: Box) -> "Lesions":
        """Within a box."""
        return Lesions(numbers=self.numbers[box], zones=self.zones[box])


@dataclass(frozen=True, kw_only=True)
class NearLesion:
    """One true lesion and the predicted ones near it; distances in mm, one surface Dice for each tolerance."""

    volume_mm3: float
    predicted: tuple[int, ...]
    dice: float
    hd95: float
    surface_dice: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class NearScores:
    """Means over scored lesions and, where the rules say so, false ones: predicted lesions that are near none."""

    dice: float
    hd95: float
    surface_dice: tuple[float, ...]
    found: int
    missed: int
    false: int


def find_true(mask_DHW: Mask, rules: NearRules) -> Lesions:
    """The lesions of the truth, before those of other tissues join some."""
    zones = find_zones(mask_DHW, rules.dilation)
    return Lesions(numbers=zones * mask_DHW, zones=zones)


def find_predicted(mask_DHW: Mask, rules: NearRules, *, spacing_mm: Sequence[float]) -> Lesions:
    """The predicted lesions that the rules keep, before those of other tissues join some."""
    if not rules.joins_predicted:
        numbers = number_components(mask_DHW)
        return Lesions(numbers=numbers, zones=numbers)
    lesions = find_true(mask_DHW, rules)
    floor = rules.smallest_predicted / (in_mm3(1, spacing_mm) if rules.smallest_predicted_is_volume else 1.0)
    counts = count_voxels(lesions.numbers)
    return lesions.renumbered(np.where(counts > floor, np.arange(len(counts)), 0))


def join_through(lesions: Lesions, rules: NearRules, others: Mapping[str, Lesions]) -> Lesions:
    """The lesions after those of other tissues have joined some."""
    if not rules.joined_through:
        return lesions
    for name in rules.joined_through:
        lesions = lesions.renumbered(join_by_neighbour(lesions.numbers, others[name].numbers))
    return lesions.renumbered(renumber(count_voxels(lesions.numbers) > 0))


def compare_lesions(
    predicted: Lesions,
    true: Lesions,
    elements: SurfacePair,
    borders: SurfacePair,
    rules: NearRules,
    *,
    penalty_mm: float,
) -> tuple[list[NearLesion], int]:
    """Every scored lesion of the truth, and how many predicted ones are false."""
    near: dict[int, list[int]] = defaultdict(list)
    for lesion, match, _ in pair_numbers(true.zones, predicted.numbers):
        near[lesion].append(match)
    sizes, predicted_sizes = count_voxels(true.numbers), count_voxels(predicted.numbers)
    hits = np.bincount(true.numbers[predicted.numbers > 0], minlength=len(sizes))
    compared = []
    for lesion in (np.flatnonzero(sizes[1:]) + 1).tolist():
        volume = in_mm3(int(sizes[lesion]), elements.spacing_mm)
        if volume <= rules.smallest_mm3:
            continue
        matches = tuple(near.get(lesion, ()))
        if matches:
            size = int(sizes[lesion]) + sum(int(predicted_sizes[match]) for match in matches)
            dice, hd95 = 2.0 * int(hits[lesion]) / size, weighted_hd95(elements.between(matches, (lesion,)))
            close = at_tolerances(borders.between(matches, (lesion,)), rules) if rules.tolerances_mm else ()
        else:
            dice, hd95, close = 0.0, penalty_mm, tuple(0.0 for _ in rules.tolerances_mm)
        compared.append(NearLesion(volume_mm3=volume, predicted=matches, dice=dice, hd95=hd95, surface_dice=close))
    touched = {match for matches in near.values() for match in matches}
    return compared, int(np.count_nonzero(predicted_sizes[1:])) - len(touched)


def at_tolerances(distances: SurfaceDistances, rules: NearRules) -> tuple[float, ...]:
    """Surface Dice at each of the rules' tolerances, with what the programs add lest they divide by 0."""
    return tuple(surface_dice(distances, tolerance=at) * 2 / (2 + _ADDED) for at in rules.tolerances_mm)


def average(lesions: Sequence[NearLesion], false: int, rules: NearRules, *, penalty_mm: float) -> NearScores:
    """The means: a false lesion counts as a Dice of 0 and the penalty; nothing to score is 1 and 0 mm."""
    scored_false = false if rules.scores_false_ones else 0
    parts = len(lesions) + scored_false
    found = sum(bool(lesion.predicted) for lesion in lesions)
    hd95 = sum(lesion.hd95 for lesion in lesions) + scored_false * penalty_mm
    return NearScores(
        dice=sum(lesion.dice for lesion in lesions) / parts if parts else 1.0,
        hd95=hd95 / parts if parts else 0.0,
        surface_dice=tuple(
            sum(lesion.surface_dice[at] for lesion in lesions) / parts if parts else 1.0
            for at in range(len(rules.tolerances_mm))
        ),
        found=found,
        missed=len(lesions) - found,
        false=false,
    )
