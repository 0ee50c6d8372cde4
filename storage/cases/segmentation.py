"""Predictions and stored scans as NIfTI files on the source's own grid: its shape, axis order, affine and header.

Shapes: R region, D H W voxels z y x in LPS of the whole scan, X Y Z voxels in the source's own axis order.
"""

import base64
import gzip
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from storage.cases.grid import scan_to_source
from storage.cases.info import CaseInfo
from storage.labels.conventions import LabelConvention
from storage.scans.gunzip import GzipError, gunzip_head, is_gzip
from storage.scans.nifti_header import NiftiError, parse_header

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_COMPRESSION = 6
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
_MOST_VOXELS = 1 << 30  # of a header that is taken at its word


def encode_segmentation(label_DHW: NDArray[np.uint8], case: CaseInfo, convention: LabelConvention) -> bytes:
    """Stored labels of the whole scan as .nii.gz, uint8 in the values of `convention`; equal input, equal bytes.

    Raises ValueError where the convention has no value for a label.
    """
    return _encode(scan_to_source(convention.to_source(label_DHW), case), case)


def encode_empty(scan: Path) -> bytes:
    """A segmentation without any label on the grid of a scan, of which no more than the header must be readable.

    Raises NiftiError or OSError where not even that is.
    """
    raw = scan.read_bytes()
    try:
        header = parse_header(gunzip_head(raw, _HEADER_BYTES) if is_gzip(raw) else raw)
    except GzipError as error:
        raise NiftiError(str(error)) from None
    shape = tuple(int(side) for side in header.get_data_shape()[:3])
    if len(shape) < 3 or math.prod(shape) > _MOST_VOXELS:
        raise NiftiError(f"the header's dimensions are {shape}")
    header.set_data_shape(shape)
    return _compress(np.zeros(shape, np.uint8), without_intensities(header))


def encode_scan(scan_DHW: NDArray[Any], case: CaseInfo) -> bytes:
    """A whole scan as .nii.gz in its own dtype."""
    return _encode(scan_to_source(scan_DHW, case), case)


def encode_probabilities(probabilities_RDHW: NDArray[np.float32], case: CaseInfo) -> bytes:
    """Probabilities of the whole scan as .nii.gz, float32 (X, Y, Z, R)."""
    return _encode(np.stack([scan_to_source(each, case) for each in probabilities_RDHW], axis=-1), case)


def _encode(array_XYZ: NDArray[Any], case: CaseInfo) -> bytes:
    return _compress(array_XYZ, source_header(case))


def _compress(array_XYZ: NDArray[Any], header: nib.Nifti1Header) -> bytes:
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    header.set_data_dtype(array_XYZ.dtype)
    # Without an affine nibabel leaves the header's two as they are, with their codes.
    image = kind(np.asfortranarray(array_XYZ), None, header)
    return gzip.compress(image.to_bytes(), compresslevel=_COMPRESSION, mtime=0)


def source_header(case: CaseInfo) -> nib.Nifti1Header:
    """The first scan's header but for what it says of intensities; where a store has none, one with the affine."""
    if not case.source_header:
        return _header_of(case)
    return without_intensities(parse_header(base64.b64decode(case.source_header)))


def without_intensities(header: nib.Nifti1Header) -> nib.Nifti1Header:
    """Return the header, as it says nothing of a scan's brightness."""
    header["cal_min"] = header["cal_max"] = 0
    header["scl_slope"], header["scl_inter"] = 1, 0
    return header


def _header_of(case: CaseInfo) -> nib.Nifti1Header:
    affine = np.asarray(case.source_affine)
    header = nib.Nifti1Header()
    header.set_data_shape(case.source_shape)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine, code=_SCANNER)  # drops a shear, which only the sform can say
    header.set_sform(affine, code=_SCANNER)
    return header
