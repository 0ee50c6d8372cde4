"""A predicted and a true segmentation of one case on one grid, whatever files or store they come from.

Shapes: X Y Z are voxels in the label's own axis order, D H W the same, turned round to z y x.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from storage.cases.grid import orientation_of, scan_to_source, uncropped
from storage.cases.info import CaseInfo
from storage.cases.placing import AS_IT_LIES, GridFile, describe_mismatch, turn_to_grid
from storage.cases.segmentation import source_header
from storage.errors import InputError
from storage.scans.listing import ScanFile
from storage.scans.nifti import read_segmentation
from storage.scans.nifti_header import NiftiError, parse_header, place_of


@dataclass(frozen=True, kw_only=True)
class SegmentationPair:
    """Values as the files have them, in C order and on the label's grid; `notes` say what was odd about the headers.

    Voxel sides along D, H, W: `spacing_mm` by the label's place, `predicted_spacing_mm` as the prediction's header says
    them.
    """

    predicted_DHW: NDArray[np.uint8]
    true_DHW: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    predicted_spacing_mm: tuple[float, float, float]
    notes: tuple[str, ...] = ()


def read_file(path: ScanFile, role: str) -> tuple[GridFile, tuple[str, ...]]:
    """A segmentation's file, and what was odd about it. Raises InputError with the file, the finding and the remedy."""
    try:
        read = read_segmentation(path)
    except NiftiError as error:
        raise InputError(f"{path}: {error.finding}; {error.remedy}") from None
    notes = tuple(f"{note.kind}: {role} {note.detail}".rstrip() for note in read.notes)
    return GridFile(role=role, path=path, place=read.place, header=read.header, array_XYZ=read.array), notes


def from_store(label_DHW: NDArray[np.uint8], case: CaseInfo) -> GridFile:
    """A stored label on the grid of the file that it came from, in stored labels."""
    header = source_header(case)
    place = place_of(header, header.binaryblock)
    array_XYZ = scan_to_source(uncropped(label_DHW, case), case)
    return GridFile(role="label", path=Path(case.case_id), place=place, header=header.binaryblock, array_XYZ=array_XYZ)


def pair_up(predicted: GridFile, true: GridFile, *, trust_grid: bool) -> SegmentationPair:
    """Both on the label's grid, the prediction turned onto it by its header where its axes lie otherwise.

    `trust_grid` takes voxels of equal shape to lie alike where only the header says otherwise. Raises InputError for
    another grid.
    """
    notes: tuple[str, ...] = ()
    found = turn_to_grid(predicted, true)
    if found is None:
        finding, remedy, trustable = describe_mismatch(predicted, true)
        if not (trust_grid and trustable):
            raise InputError(f"{predicted.path}: {finding}; {remedy}")
        turn, notes = AS_IT_LIES, (f"voxels taken to lie alike whatever the header says: {finding}",)
    else:
        turn = found[0]
        turned = f"prediction turned by its header: {orientation_of(predicted.place.affine)}"
        if not np.array_equal(turn, AS_IT_LIES):
            notes = (f"{turned}, as the label is",)
    said = np.asarray(parse_header(predicted.header).get_zooms()[:3], dtype=float)
    if not (np.isfinite(said).all() and (said > 0).all()):
        raise InputError(f"{predicted.path}: its header says voxels of {said.tolist()} mm; repair its pixdim")
    sides = np.empty(3)
    sides[turn[:, 0].astype(int)] = said
    return SegmentationPair(
        predicted_DHW=_in_order(apply_orientation(predicted.array_XYZ, turn)),
        true_DHW=_in_order(true.array_XYZ),
        spacing_mm=_reversed(np.linalg.norm(true.place.affine[:3, :3], axis=0)),
        predicted_spacing_mm=_reversed(sides),
        notes=notes,
    )


def _in_order(array_XYZ: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array_XYZ.T)


def _reversed(sides_XYZ: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = sides_XYZ.tolist()
    return z, y, x
