"""One NIfTI file read and checked: what comes back equals what nibabel reads, or the file is refused with the reason.

nibabel parses the header and scales; the bytes are read once, for the checksum and the voxels together.

Shapes: X Y Z are voxels in the file's own axis order, T is the fourth axis of a 4-D file.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from storage.scans.gunzip import GzipError, gunzip, gunzip_head, is_gzip
from storage.scans.listing import ScanFile

# Larger than any brain scan; what asks for more is a broken header.
_MAX_BYTES = 1 << 32
_CIFTI_INTENTS = range(3000, 3100)
_CIFTI_EXTENSION = 32
_WHOLE_TOLERANCE = 1e-5
_SINGULAR = 1e-12


class NiftiError(Exception):
    """A file that cannot be used: `finding` says what is wrong, `remedy` what to do."""

    def __init__(self, finding: str, remedy: str = "download or export the file again") -> None:
        super().__init__(finding)
        self.finding = finding
        self.remedy = remedy


@dataclass(frozen=True, kw_only=True)
class SourceVolume:
    """A file's voxels and grid. `array` is XYZ or XYZT in the narrowest dtype that loses nothing, at least int16.

    `header` is the file's as it lies there: 348 bytes of NIfTI-1 or 540 of NIfTI-2, without extensions.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    header: bytes
    sha256: str
    size: int
    mtime_ns: int


def read_volume(path: ScanFile, *, dimensions: int = 3) -> SourceVolume:
    """Read and check one file; raises NiftiError with what was found."""
    raw, mtime_ns = _read_bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    data = _decompress(raw)
    header = parse_header(data)
    array = _voxels(data, header, dimensions)
    return SourceVolume(
        array=narrowest(array),
        affine=_affine(header),
        header=data[: header.template_dtype.itemsize],
        sha256=sha256,
        size=len(raw),
        mtime_ns=mtime_ns,
    )


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


def as_labels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """A segmentation's values as uint8; raises NiftiError when they are no whole numbers in 0..255.

    Values within 1e-5 of a whole number count as whole: a header's scale slope makes 0.99999997 of a 1.
    """
    whole = np.rint(array) if array.dtype.kind == "f" else array
    if array.dtype.kind == "f" and float(np.abs(array - whole).max(initial=0.0)) > _WHOLE_TOLERANCE:
        odd = array[np.abs(array - whole) > _WHOLE_TOLERANCE].ravel()[0]
        raise NiftiError(f"a label of {float(odd):g} is not a whole number", "name the right segmentation file")
    low, high = float(whole.min(initial=0)), float(whole.max(initial=0))
    if low < 0 or high > 255:
        raise NiftiError(f"labels run from {low:g} to {high:g}", "name the right segmentation file")
    return whole.astype(np.uint8)


def _read_bytes(path: ScanFile) -> tuple[bytes, int]:
    try:
        raw = path.read_bytes()
        mtime_ns = path.stat().st_mtime_ns
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
        return gunzip(raw, _announced_bytes(header))
    except GzipError as error:
        raise NiftiError(str(error)) from None


def parse_header(data: bytes) -> nib.Nifti1Header:
    """The header that `data` begins with as nibabel understands it, version 1 or 2, either byte order."""
    sizes = {int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")}
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header if 348 in sizes else None
    if kind is None or len(data) < kind.template_dtype.itemsize:
        raise NiftiError(
            "not a NIfTI file, whatever its name", "export it as NIfTI (.nii, .nii.gz) or download it again"
        )
    try:
        header = kind(data[: kind.template_dtype.itemsize], check=True)
        shape = tuple(int(side) for side in header.get_data_shape())
        header.get_data_dtype()
    except Exception as error:  # whatever nibabel raises about a broken header is the finding
        raise NiftiError(f"the header is not valid NIfTI ({error})") from None
    magic = bytes(header["magic"].item()).rstrip(b"\0\r\n\x1a")
    if not magic.startswith(b"n+"):
        raise NiftiError(f"not a single-file NIfTI (magic {magic!r})", "convert .hdr/.img pairs to .nii.gz")
    if not shape or min(shape) < 1:
        raise NiftiError(f"the header's dimensions are {shape}")
    return header


def _announced_bytes(header: nib.Nifti1Header) -> int:
    """Bytes that the header says the decompressed file has; raises NiftiError when that is absurd."""
    offset = float(header["vox_offset"])
    voxels = math.prod(int(side) for side in header.get_data_shape())
    size = voxels * header.get_data_dtype().itemsize
    if not header.template_dtype.itemsize <= offset <= _MAX_BYTES or size > _MAX_BYTES:
        raise NiftiError(f"the header announces {size} bytes of voxels at byte {offset:g}")
    return int(header.get_data_offset()) + size


def _voxels(data: bytes, header: nib.Nifti1Header, dimensions: int) -> NDArray[Any]:
    dtype = header.get_data_dtype()
    shape = tuple(int(side) for side in header.get_data_shape())
    cifti = int(header["intent_code"]) in _CIFTI_INTENTS or _has_cifti_extension(data, header)
    if cifti:
        raise NiftiError("a CIFTI file (surfaces or matrices), not a volume", "name the NIfTI volume of this scan")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = {"c": "complex", "V": "RGB"}.get(dtype.kind, str(dtype))
        raise NiftiError(f"{what} voxels, not one number each", "export the scan as integers or floats")
    if len(shape) != dimensions:
        raise NiftiError(f"{len(shape)} dimensions {shape}, wanted {dimensions}", "name the file with the single scan")
    needed = _announced_bytes(header)
    if len(data) < needed:
        raise NiftiError(f"truncated: {len(data)} bytes of the {needed} that the header announces")
    array: NDArray[Any] = np.frombuffer(
        data, dtype=dtype, count=math.prod(shape), offset=int(header.get_data_offset())
    ).reshape(shape, order="F")
    try:
        slope, intercept = header.get_slope_inter()
    except Exception as error:  # nibabel's own objection to a broken slope is the finding
        raise NiftiError(f"the header's scaling is not valid ({error})") from None
    if slope is None or (slope, intercept) == (1.0, 0.0):
        return array
    with np.errstate(all="ignore"):
        scaled: NDArray[Any] = apply_read_scaling(array, slope, intercept)
    return scaled


def _has_cifti_extension(data: bytes, header: nib.Nifti1Header) -> bool:
    start = header.template_dtype.itemsize
    if len(data) < start + 12 or data[start] == 0 or int(header.get_data_offset()) < start + 12:
        return False
    return int(np.frombuffer(data, header.endianness + "i4", 1, start + 8)[0]) == _CIFTI_EXTENSION


def _affine(header: nib.Nifti1Header) -> NDArray[np.float64]:
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except Exception as error:  # an impossible quaternion, say
        raise NiftiError(f"the header's orientation is not valid ({error})") from None
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < _SINGULAR:
        raise NiftiError("the header's affine is singular or not finite", "repair the header's sform or qform")
    return affine + 0.0


def file_digest(path: ScanFile) -> str | None:
    """SHA-256 of a file as it lies there, None when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, NiftiError):
        return None
