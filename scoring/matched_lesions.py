"""Lesion-wise scores of 2026: every component is a lesion, and pairs are matched one to one.

Written from the description of panoptica (F. Kofler et al. 2023, arXiv:2312.02608) and from what the program prints
(docs/scores.md).
Letters in names: D H W voxels z y x.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from scoring.components import Numbers, count_voxels, pair_numbers

PENALTY_MM = 373.0
LEAST_DICE = 0.1
"""Below this a matched lesion counts as missed, where small and large lesions are scored apart."""


# Stands for the Dice of a pair without a common voxel: less than any that has one.
_NO_PAIR = -1e-6


@dataclass(frozen=True, kw_only=True)
class LesionMatch:
    """One true lesion and the component that is its prediction, if any."""

    true: int
    voxels: int
    predicted: int | None
    dice: float


def match_lesions(predicted_DHW: Numbers, true_DHW: Numbers) -> list[LesionMatch]:
    """Every true lesion with its match: one to one, of pairs that share a voxel those with the largest sum of Dice."""
    sizes, predicted_sizes = count_voxels(true_DHW), count_voxels(predicted_DHW)
    dice = np.full((len(sizes) - 1, len(predicted_sizes) - 1), _NO_PAIR)
    for true, other, hits in pair_numbers(true_DHW, predicted_DHW):
        dice[true - 1, other - 1] = 2.0 * hits / int(sizes[true] + predicted_sizes[other])
    match_of = dict(zip(*linear_sum_assignment(1.0 - dice), strict=True))
    lesions = []
    for at, voxels in enumerate(sizes[1:].tolist()):
        predicted = match_of.get(at)
        if predicted is None or dice[at, predicted] == _NO_PAIR:
            lesions.append(LesionMatch(true=at + 1, voxels=voxels, predicted=None, dice=0.0))
        else:
            found = int(predicted) + 1
            lesions.append(LesionMatch(true=at + 1, voxels=voxels, predicted=found, dice=float(dice[at, predicted])))
    return lesions


def count_matches(prefix: str, found: int, missed: int, false: int, *, nothing: float) -> dict[str, float]:
    """Counts of lesions and the shares that follow from them; `nothing` is the share of none."""
    return {
        f"{prefix}_found": found,
        f"{prefix}_missed": missed,
        f"{prefix}_false": false,
        f"{prefix}_precision": found / (found + false) if found + false else nothing,
        f"{prefix}_recall": found / (found + missed) if found + missed else nothing,
        f"{prefix}_f1": 2 * found / (2 * found + false + missed) if found + false + missed else nothing,
    }


def mean_and_spread(name: str, values: Sequence[float], *, nothing: float) -> dict[str, float]:
    """The mean of lesions' scores and their standard deviation (of all, not of a sample)."""
    if not values:
        return {name: nothing, f"{name}_std": math.nan}
    return {name: float(np.mean(values)), f"{name}_std": float(np.std(values))}
