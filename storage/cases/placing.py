"""Whether a file lies on another one's grid by their headers, how its axes are turned onto it, and what to say if not.

Shapes: X Y Z are voxels in a file's own axis order.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.cases.grid import corner_distances, orientation_of, turn_onto
from storage.scans.listing import Place
from storage.scans.nifti_header import Form, Placement

AS_IT_LIES = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])  # nibabel's transform that turns nothing

_TRUST = "say --trust-grid (convert.py, predict.py, score.py)"

# Share of a voxel's smallest side: nearer than that every voxel still lies on its own, and not on the next one. A
# header rounded to three digits is 0.1 mm off at the far corner.
_SAME_VOXEL = 0.25
# Radians by which a quaternion in single precision may be off near half a turn, where its real part is lost: 1.29e-3
# was the most of 20,000, as nibabel reads them.
_QUATERNION = 1.3e-3


@dataclass(frozen=True, kw_only=True)
class GridFile:
    """One role's voxels as its file has them, and where they lie."""

    role: str
    path: Place
    place: Placement
    header: bytes
    array_XYZ: NDArray[Any]


def turn_to_grid(file: GridFile, grid: GridFile) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """How the file's axes are turned onto the grid, and how far its corners are off; None where it lies elsewhere."""
    here, there = file.place, grid.place
    for onto, form in product(there.forms, here.forms):  # programs differ in which of a header's two they keep
        found = turn_onto(file.array_XYZ.shape, form.affine, grid.array_XYZ.shape, onto.affine)
        if found is None or not is_near(found[1], grid.array_XYZ.shape, onto, form):
            continue
        # What nibabel assumes where a header says nothing may fit by chance, and is no reason to flip a scan.
        if (here.coded and there.coded) or np.array_equal(found[0], AS_IT_LIES):
            return found
    return None


def describe_mismatch(file: GridFile, grid: GridFile) -> tuple[str, str, bool]:
    """Finding and remedy for a file that lies elsewhere, and whether --trust-grid may overrule its header."""
    name, shape = grid.path.name, file.array_XYZ.shape
    resample = f"resample it to the grid of {name}"
    if shape != grid.array_XYZ.shape:
        finding = f"shape {shape}, {name} has {grid.array_XYZ.shape}"
        return finding, f"{resample}, or take the file of this exam", False
    here, there = file.place, grid.place
    found = turn_onto(shape, here.affine, shape, there.affine)
    off = (corner_distances(shape, here.affine, there.affine) if found is None else found[1]).max()
    finding = f"its affine differs from that of {name} by up to {off:.4g} mm"
    same_axes = orientation_of(here.affine) == orientation_of(there.affine)
    if not here.said or not (there.said or same_axes):
        lost, kept = (name, file.path.name) if here.said else (file.path.name, name)
        finding += f": the header of {lost} says no place (no code, or an origin of 0 and straight axes)"
        return finding, f"if the voxels of both lie alike, copy the header of {kept} to {lost}, or {_TRUST}", True
    if same_axes:
        return finding, f"{resample}, or, if only its header is off and the voxels lie alike, {_TRUST}", True
    # By its header its left may be the other's right: no flag may take that for granted.
    return finding, f"{resample}, or, if only its header is wrong, copy that of {name} to it", False


def is_near(off: NDArray[np.float64], shape: tuple[int, ...], one: Form, other: Form) -> bool:
    """Whether corners that are `off` by so much lie on their own voxels still, but for what a quaternion rounds."""
    sides = np.linalg.norm(one.affine[:3, :3], axis=0)
    near = _SAME_VOXEL * float(sides.min())
    rounded = _QUATERNION * float(np.linalg.norm(sides * shape)) if one.quaternion or other.quaternion else 0.0
    return bool(off.min() <= near and off.max() <= near + rounded)
