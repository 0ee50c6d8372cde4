"""Which voxels of a scan a network sees: part of the model's configuration, saved with it, like its normalisation."""

from dataclasses import dataclass
from typing import Literal

from storage.cases.info import CaseInfo, Shape
from storage.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The box of each case that patches are cut from and that prediction covers.

    Raises InputError for slices to drop that the grid does not have.
    """

    grid: Literal["head", "scan"] = "head"
    """head: the stored box around all that is not background. scan: the scanner's whole grid, background included."""
    drop_slices: int = 0
    """Axial slices left out at each end of the scan's grid."""

    def __post_init__(self) -> None:
        if self.drop_slices < 0 or (self.drop_slices and self.grid == "head"):
            raise InputError(
                f"wanted drop_slices of 0, or more with the grid 'scan', got {self.drop_slices} with {self.grid!r}"
            )

    def box(self, case: CaseInfo) -> tuple[Shape, Shape]:
        """Where the box begins (z y x of the stored grid, negative outside it) and its shape.

        Raises InputError for a scan with too few slices.
        """
        if self.grid == "head":
            return (0, 0, 0), case.shape
        (z, _), (y, _), (x, _) = case.bbox
        depth, height, width = case.original_shape
        if depth <= 2 * self.drop_slices:
            raise InputError(
                f"case {case.case_id} has {depth} slices, and drop_slices {self.drop_slices} leaves none; lower it"
            )
        return (self.drop_slices - z, -y, -x), (depth - 2 * self.drop_slices, height, width)
