"""Source grids and stored grids: reorientation to LPS by the header, the crop, and both undone.

nibabel's arrays are (x, y, z); everything stored is (z, y, x) in LPS: x to the patient's left, y to the back, z up.
Affines take voxel (x, y, z, 1) to scanner millimetres in nibabel's RAS+ world.

Shapes: X Y Z are voxels in the source's own axis order, D H W are voxels z y x in LPS.
"""

from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from storage.cases.info import Box, CaseInfo

STORED_ORIENTATION = "LPS"


def orientation_of(affine: NDArray[np.float64]) -> str:
    """The axis codes of an affine, such as "LPS" or "RAS"."""
    return "".join(aff2axcodes(affine))


def to_lps(array_XYZ: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """The array as DHW in LPS; a view, nothing is copied."""
    turned: NDArray[Any] = nib.orientations.apply_orientation(array_XYZ, _to_lps_transform(affine))
    return turned.T


def lps_affine(shape_XYZ: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine of the whole grid after reorientation, for voxel (x, y, z)."""
    result: NDArray[np.float64] = affine @ inv_ornt_aff(_to_lps_transform(affine), shape_XYZ)
    return result + 0.0  # -0.0 becomes 0.0, so that equal grids read equal


def turn_onto(
    shape: tuple[int, ...],
    affine: NDArray[np.float64],
    onto_shape: tuple[int, ...],
    onto_affine: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """How to permute and flip a file's axes so that its voxels are in the order of another's.

    Returns nibabel's transform for `apply_orientation`, and by how many millimetres each corner is off then; None where
    no turn makes the shapes equal.
    """
    turn = io_orientation(np.linalg.inv(onto_affine) @ affine)
    turned = np.empty(3, dtype=int)
    turned[turn[:, 0].astype(int)] = shape
    if tuple(turned) != tuple(onto_shape):
        return None
    return turn, corner_distances(onto_shape, affine @ inv_ornt_aff(turn, shape), onto_affine)


def corner_distances(
    shape: tuple[int, ...], one: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far apart two affines put each corner of a grid, in millimetres."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(side - 1 for side in shape), 1]
    distances: NDArray[np.float64] = np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1)
    return distances


def scan_to_source(full_DHW: NDArray[Any], info: CaseInfo) -> NDArray[Any]:
    """An array of the whole scan, `info.original_shape` in LPS, in the source's axis order: array_XYZ, a view."""
    if full_DHW.shape != info.original_shape:
        raise ValueError(f"wanted the whole scan {info.original_shape} of {info.case_id}, got {full_DHW.shape}")
    source = axcodes2ornt(aff2axcodes(np.asarray(info.source_affine)))
    back = ornt_transform(axcodes2ornt(STORED_ORIENTATION), source)
    restored: NDArray[Any] = nib.orientations.apply_orientation(full_DHW.T, back)
    return restored


def uncropped(stored_DHW: NDArray[Any], info: CaseInfo) -> NDArray[Any]:
    """A stored array in its place in the whole scan, 0 beyond it."""
    whole_DHW = np.zeros(info.original_shape, stored_DHW.dtype)
    whole_DHW[box_slices(info.bbox)] = stored_DHW
    return whole_DHW


def box_slices(bbox: Box) -> tuple[slice, slice, slice]:
    """A half-open box [[z0, z1], [y0, y1], [x0, x1]] as slices."""
    (z0, z1), (y0, y1), (x0, x1) = bbox
    return slice(z0, z1), slice(y0, y1), slice(x0, x1)


def bounding_box(mask_DHW: NDArray[np.bool_]) -> Box:
    """The smallest half-open box that holds every true voxel, of which there must be one."""
    hits = [np.flatnonzero(mask_DHW.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    z, y, x = ((int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return z, y, x


def _to_lps_transform(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = ornt_transform(io_orientation(affine), axcodes2ornt(STORED_ORIENTATION))
    return result
