"""Voxels as numbers: the narrowest type that holds a scan, whole numbers from a segmentation, background as 0."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.scans.nifti_header import FileNote, NiftiError

# A segmentation that was saved under an integer header, or multiplied on its way, is off by less.
_LABEL_TOLERANCE = 1e-2
_FEW = 16
# By what share a constant background differs from itself once it was resampled in floating point.
_FLOAT_NOISE = 1e-5
# Shares of the voxels along the edges, and of all.
_MOST, _COMMON = 0.5, 0.05


def narrowest(array: NDArray[Any]) -> NDArray[Any]:
    """The same values in the first of int16, uint16, int32, float32, float64, int64 that holds them all exactly.

    Not 8 bits: after byte shuffling the empty upper byte costs nothing, and one dtype for a cohort is easier to batch.
    Raises NiftiError for NaN and infinity.
    """
    if np.can_cast(array.dtype, np.int16):
        return array.astype(np.int16, copy=False)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            count = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
            raise NiftiError(f"{count} voxels are NaN or infinite", "repair the scan or leave the case out")
        if not (np.rint(array) == array).all():
            return _narrowest_float(array)
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    for dtype in (np.int16, np.uint16, np.int32):
        limits = np.iinfo(dtype)
        if limits.min <= low and high <= limits.max:
            return array.astype(dtype, copy=False)
    if array.dtype.kind == "f":
        return _narrowest_float(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _narrowest_float(array: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what overflows to infinity differs below, and stays float64
        single = array.astype(np.float32)
    return single if (single == array).all() else array.astype(np.float64)


def as_labels(array: NDArray[Any], *, step: float = 0.0) -> tuple[NDArray[np.uint8], tuple[FileNote, ...]]:
    """A segmentation's values as uint8, and what had to be made of them; raises NiftiError when they are no labels.

    Labels are whole numbers in 0..255. A few of them may be off by a hundredth, or by half a `step`, which is what a
    file's integers are scaled by: nibabel writes 2 as 2.00003 when it is given floats under an integer header.
    """
    whole = np.rint(array) if array.dtype.kind == "f" else array
    off = float(np.abs(array - whole).max(initial=0.0)) if array.dtype.kind == "f" else 0.0
    tolerance = max(_LABEL_TOLERANCE, min(step / 2 * (1 + 1e-6), 0.25))
    if off > tolerance:
        odd = array[np.abs(array - whole) > tolerance].ravel()[0]
        raise NiftiError(f"a label of {float(odd):g} is not a whole number", "name the right segmentation file")
    low, high = float(whole.min(initial=0)), float(whole.max(initial=0))
    if low < 0 or high > 255:
        outside = whole[(whole < 0) | (whole > 255)]
        raise NiftiError(
            f"labels run from {low:g} to {high:g}, wanted 0 to 255",
            f"write 0 where it has {float(outside.flat[0]):g}, if that means background, or name the right "
            "segmentation file",
        )
    labels = whole.astype(np.uint8)
    if off == 0:
        return labels, ()
    found = np.count_nonzero(np.bincount(labels.ravel(order="K")))
    if found > _FEW:
        raise NiftiError(f"{found} different values, none of them whole", "name the right segmentation file")
    return labels, (FileNote("labels rounded to whole numbers", f"by up to {off:.2g}"),)


def without_nan(array: NDArray[Any]) -> tuple[NDArray[Any], tuple[FileNote, ...]]:
    """The array with 0 for NaN where NaN is its background, as programs write that mask a brain; else as it is."""
    if array.dtype.kind != "f":
        return array, ()
    nan = np.isnan(array)
    if not nan.any() or nan.all() or np.isnan(_edges(array)).mean() < _MOST:
        return array, ()
    note = FileNote("NaN is the background, stored as 0", f"{np.count_nonzero(nan)} voxels")
    return np.where(nan, np.zeros((), array.dtype), array), (note,)


def without_background(scan_XYZ: NDArray[Any]) -> tuple[NDArray[Any], tuple[FileNote, ...]]:
    """The scan with 0 for its background, whatever that was, and what was made of it.

    The background is the value that at least half of the voxels along the edges of the box have: brains do not reach
    there, not in a scan cropped to the brain either. So is the scan's smallest value where it is common, as around the
    brain of a scan that was normalised and then padded; a brain's own smallest value is rare.
    """
    edge = _edges(scan_XYZ)
    middle = np.partition(edge, edge.size // 2)[edge.size // 2]  # what half of them have is the median
    found = [middle] if _near(edge, middle).mean() >= _MOST else []
    lowest = scan_XYZ.min()
    known = [scan_XYZ.dtype.type(0), *found]
    if not any(_near(lowest, value) for value in known) and _near(scan_XYZ, lowest).mean() >= _COMMON:
        found.append(lowest)
    if not found:
        return scan_XYZ, (FileNote("no background found, 0 is taken for it"),)
    values = [value for value in found if value != 0]
    if not values:
        return scan_XYZ, ()
    zeros = scan_XYZ.size - np.count_nonzero(scan_XYZ)
    beside = f", {zeros} voxels of 0 beside it are brain where another scan says so" if zeros else ""
    background = functools.reduce(np.logical_or, (_near(scan_XYZ, value) for value in values))
    zeroed = np.where(background, np.zeros((), scan_XYZ.dtype), scan_XYZ)
    shown = " and ".join(f"{float(value):g}" for value in values)
    return narrowest(zeroed), (FileNote("background stored as 0", f"{shown}{beside}"),)


def _near(array: Any, value: Any) -> Any:
    """Where the array has the value, give or take what resampling in floating point leaves of a constant."""
    exact = array.dtype.kind != "f"
    return array == value if exact else np.abs(array - value) <= _FLOAT_NOISE * abs(float(value))


def _edges(array: NDArray[Any]) -> NDArray[Any]:
    """The voxels at which two of the first three axes end; of a single slice, its rim."""
    ends = [0, -1]
    lines = (array[ends][:, ends], array[ends][:, :, ends], array[:, ends][:, :, ends])
    return np.concatenate([line.ravel() for line in lines])
