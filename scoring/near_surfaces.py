"""The surfaces of a region's lesions by the rules of 2023 to 2025, found once for the whole case.

Components do not touch each other, so that a lesion's surface is the part of the whole that has its number.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from scoring.rules import NearRules
from scoring.scores import Spacing
from scoring.surface import SurfacePair, measure, surface_dice, weighted_hd95

# What the programs add to the sum of all shares, lest they divide by 0: equal masks have less than 1.
_ADDED = 1e-8


@dataclass(frozen=True, kw_only=True)
class NearSurfaces:
    """elements: with areas, for HD95. borders: voxels, for surface Dice; None where it isn't asked for."""

    elements: SurfacePair
    borders: SurfacePair | None
    spacing_mm: Spacing

    def of(self, predicted: Collection[int], true: int) -> "NearSurfaces":
        """Those of predicted lesions and a true one."""
        return NearSurfaces(
            elements=self.elements.of(predicted, (true,)),
            borders=self.borders and self.borders.of(predicted, (true,)),
            spacing_mm=self.spacing_mm,
        )

    def compare(self, rules: NearRules) -> tuple[float, tuple[float, ...]]:
        """HD95 in mm and surface Dice at every tolerance; raises ValueError where a surface has no points."""
        distances = measure(self.elements, spacing_mm=self.spacing_mm)
        if self.borders is None:
            return weighted_hd95(distances), ()
        borders = measure(self.borders, spacing_mm=self.spacing_mm)
        shares = (surface_dice(borders, tolerance=tolerance) for tolerance in rules.tolerances_mm)
        return weighted_hd95(distances), tuple(share * 2 / (2 + _ADDED) for share in shares)

    def of_kept(self) -> "NearSurfaces":
        """Without what is predicted but belongs to no lesion."""
        numbers = np.unique(self.elements.predicted.component)
        kept = [int(number) for number in numbers if number]
        return NearSurfaces(
            elements=SurfacePair(predicted=self.elements.predicted.of(kept), true=self.elements.true),
            borders=self.borders and SurfacePair(predicted=self.borders.predicted.of(kept), true=self.borders.true),
            spacing_mm=self.spacing_mm,
        )
