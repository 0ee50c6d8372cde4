"""One NIfTI file read and checked: what comes back equals what nibabel reads, or the file is refused with the reason.

nibabel parses the header and scales; the bytes are read once, for the checksum and the voxels together.

Shapes: X Y Z are voxels in the file's own axis order, T is the fourth axis of a 4-D file.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from storage.scans.gunzip import GzipError, gunzip, gunzip_head, is_gzip
from storage.scans.listing import ScanFile, UnreadableError
from storage.scans.nifti_header import (
    FileNote,
    NiftiError,
    Placement,
    announced_bytes,
    data_offset,
    parse_header,
    place_of,
)
from storage.scans.voxel_values import as_labels, narrowest, without_nan

_CIFTI_INTENTS = range(3000, 3100)
_CIFTI_EXTENSION = 32


@dataclass(frozen=True, kw_only=True)
class SourceVolume:
    """A file's voxels and grid. `array` is XYZ or XYZT in the narrowest dtype that loses nothing, at least int16.

    `header` is the file's as it lies there: 348 bytes of NIfTI-1 or 540 of NIfTI-2, without extensions. `step` is what
    its integers are scaled by, 0 where they are not. `notes` say what was made of a file that is not as it should be.
    """

    array: NDArray[Any]
    place: Placement
    header: bytes
    step: float
    sha256: str
    size: int
    mtime_ns: int
    notes: tuple[FileNote, ...] = ()

    @property
    def affine(self) -> NDArray[np.float64]:
        """The affine that nibabel takes."""
        return self.place.affine


def read_volume(path: ScanFile, *, dimensions: int = 3) -> SourceVolume:
    """Read and check one file; raises NiftiError with what was found. A fourth axis of one volume is none."""
    read = _read(path, dimensions)
    return replace(read, array=narrowest(read.array))


def read_segmentation(path: ScanFile) -> SourceVolume:
    """`read_volume` with labels for voxels: uint8."""
    read = _read(path, dimensions=3)
    if read.array.dtype == np.uint8:
        return read
    labels, notes = as_labels(narrowest(read.array), step=read.step)
    return replace(read, array=labels, notes=(*read.notes, *notes))


def _read(path: ScanFile, dimensions: int) -> SourceVolume:
    raw, mtime_ns = _read_bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    data = _decompress(raw)
    header = parse_header(data)
    array, step = _voxels(data, header, dimensions)
    array, notes = without_nan(array)
    place = place_of(header, data)
    return SourceVolume(
        array=array,
        place=place,
        header=data[: header.template_dtype.itemsize],
        step=step,
        sha256=sha256,
        size=len(raw),
        mtime_ns=mtime_ns,
        notes=(*place.notes, *notes),
    )


def _read_bytes(path: ScanFile) -> tuple[bytes, int]:
    try:
        raw = path.read_bytes()
        mtime_ns = path.stat().st_mtime_ns
    except UnreadableError as error:
        raise NiftiError(error.finding, error.remedy) from None
    except PermissionError:
        raise NiftiError("no permission to read the file", "give this user read permission on it") from None
    except OSError as error:
        raise NiftiError(f"the file cannot be read ({error.strerror or error})") from None
    if not raw:
        raise NiftiError("the file has zero bytes")
    return raw, mtime_ns


def _decompress(raw: bytes) -> bytes:
    if not is_gzip(raw):
        return raw
    try:
        header = parse_header(gunzip_head(raw, 540))
        return gunzip(raw, announced_bytes(header))
    except GzipError as error:
        raise NiftiError(str(error)) from None


def _voxels(data: bytes, header: nib.Nifti1Header, dimensions: int) -> tuple[NDArray[Any], float]:
    """The voxels as the header scales them, and the scale, which is 0 for none."""
    dtype = header.get_data_dtype()
    shape = tuple(int(side) for side in header.get_data_shape())
    cifti = int(header["intent_code"]) in _CIFTI_INTENTS or _has_cifti_extension(data, header)
    if cifti:
        raise NiftiError("a CIFTI file (surfaces or matrices), not a volume", "name the NIfTI volume of this scan")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = {"c": "complex", "V": "RGB"}.get(dtype.kind, str(dtype))
        raise NiftiError(f"{what} voxels, not one number each", "export the scan as integers or floats")
    if math.prod(shape[dimensions:]) == 1:  # programs that count time write (X, Y, Z, 1)
        shape = shape[:dimensions]
    if len(shape) != dimensions:
        raise NiftiError(f"{len(shape)} dimensions {shape}, wanted {dimensions}", "name a file with a single scan")
    needed = announced_bytes(header)
    if int(header["vox_offset"]) == 0 and len(data) != needed:
        raise NiftiError(f"the header says that voxels begin at byte 0, and {len(data)} bytes are not {needed}")
    if len(data) < needed:
        raise NiftiError(f"truncated: {len(data)} bytes of the {needed} that the header announces")
    array: NDArray[Any] = np.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=data_offset(header)).reshape(
        shape, order="F"
    )
    try:
        slope, intercept = header.get_slope_inter()
    except Exception as error:  # nibabel's own objection to a broken slope is the finding
        raise NiftiError(f"the header's scaling is not valid ({error})") from None
    if slope is None or (slope, intercept) == (1.0, 0.0):
        return array, 0.0
    with np.errstate(all="ignore"):
        scaled: NDArray[Any] = apply_read_scaling(array, slope, intercept)
    return scaled, abs(float(slope)) if dtype.kind in "iu" else 0.0


def _has_cifti_extension(data: bytes, header: nib.Nifti1Header) -> bool:
    start = header.template_dtype.itemsize
    if len(data) < start + 12 or data[start] == 0 or data_offset(header) < start + 12:
        return False
    return int(np.frombuffer(data, header.endianness + "i4", 1, start + 8)[0]) == _CIFTI_EXTENSION


def file_digest(path: ScanFile) -> str | None:
    """SHA-256 of a file as it lies there, None when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, UnreadableError):
        return None
