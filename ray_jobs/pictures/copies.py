"""A case's copy to scroll through in a browser: scans of eight bits and JPEG, label and prediction exact, as a script.

Shapes: M modality, R region, D H W voxels (z y x) in LPS. In a copy voxels are in RAS, x fastest, as NiiVue holds them.
"""

import base64
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from zlib_ng import zlib_ng

from ray_jobs.pictures.sections import painted_masks, tumour_to_show, widest_slices
from storage import CaseInfo, Region
from storage.labels.tasks import seen_of_regions
from storage.scans.gunzip import GZIP_WINDOW

# Of 16 BraTS 2018 cases: 1.7 to 2.9 MB a copy, the mean error of a scan 0.7 to 2.8 % of the window that is shown first.
QUALITY = 85
_LEVELS = 255
_ABOVE_WINDOW = 2.0  # what is brighter than this often the window's end is all the same
_WINDOW = ("1", "99.5")  # percentiles of the brain, as cross-sections have them
_BLOCK = 8  # of JPEG: tiles of whole blocks keep a slice out of its neighbours
_SCANNER, _LABELS = 1, 1002  # NIFTI_XFORM_SCANNER_ANAT, NIFTI_INTENT_LABEL: NiiVue draws outlines of these alone


def encode_copy(
    case: CaseInfo,
    regions: Sequence[Region],
    image_MDHW: NDArray[Any],
    label_RDHW: NDArray[np.bool_] | None,
    predicted_RDHW: NDArray[np.bool_],
    *,
    skull_stripped: bool = True,
) -> bytes:
    """Return a script that puts the copy into `brainCopies` under the case's id; equal input, equal bytes.

    A voxel of label or prediction is the place, from 1 on, of the region in whose colour it is painted.
    """
    z, y, x = widest_slices(tumour_to_show(label_RDHW, predicted_RDHW))
    depth, height, width = case.shape
    seen = seen_of_regions(regions)
    scans = zip(case.modalities, image_MDHW, range(len(case.modalities)), strict=True)
    copy = {
        "case": case.case_id,
        "shape": [width, height, depth],
        "at": [width - 1 - x, height - 1 - y, z],
        "columns": _columns(depth),
        "tile": [_whole_blocks(width), _whole_blocks(height)],
        "header": _base64(_header(case, (len(case.modalities),))),
        "scans": [
            {"name": name, **_encode_scan(case, scan_DHW, number, skull_stripped=skull_stripped)}
            for name, scan_DHW, number in scans
        ],
        "label": None if label_RDHW is None else _encode_masks(case, regions, label_RDHW),
        "prediction": _encode_masks(case, regions, predicted_RDHW),
        "colours": [
            {"name": seen.get(region.name, region.title), "rgb": [round(255 * part) for part in region.colour]}
            for region in regions
        ],
    }
    # Without a "<" it may stand within a page, whatever the case is called.
    text = json.dumps(copy, separators=(",", ":")).replace("<", "\\u003c")
    return f"(globalThis.brainCopies ??= {{}})[{_quoted(case.case_id)}] = {text};\n".encode()


def _encode_scan(case: CaseInfo, scan_DHW: NDArray[Any], number: int, *, skull_stripped: bool) -> dict[str, Any]:
    """A scan's slices side by side as one JPEG; `low` and `high` are the intensities of its black and its white."""
    start, end = (case.percentiles[name][number] for name in _WINDOW)
    low = min(0.0, case.minimum[number])
    high = max(low + 1e-6, min(case.maximum[number], low + _ABOVE_WINDOW * (end - low)))
    scale = _LEVELS / (high - low)
    grey_DHW = np.clip((scan_DHW - np.float32(low)) * np.float32(scale) + 0.5, 0, _LEVELS).astype(np.uint8)
    if skull_stripped:
        grey_DHW[scan_DHW == 0] = 0
    file = io.BytesIO()
    Image.fromarray(_side_by_side(_turned(grey_DHW))).save(file, format="JPEG", quality=QUALITY)
    window = [min(_LEVELS, max(0, round((value - low) * scale))) for value in (start, end)]
    return {"low": low, "high": high, "window": window, "jpeg": _base64(file.getvalue())}


def _side_by_side(grey_DHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The slices as tiles of one picture, row by row."""
    depth, height, width = grey_DHW.shape
    columns = _columns(depth)
    rows = math.ceil(depth / columns)
    tall, wide = _whole_blocks(height), _whole_blocks(width)
    padding = ((0, rows * columns - depth), (0, tall - height), (0, wide - width))
    tiles = np.pad(grey_DHW, padding, mode="edge").reshape(rows, columns, tall, wide)
    return tiles.swapaxes(1, 2).reshape(rows * tall, columns * wide)


def _encode_masks(case: CaseInfo, regions: Sequence[Region], masks_RDHW: NDArray[np.bool_]) -> str:
    """The colours that are seen, as .nii.gz."""
    painted_DHW = np.zeros(case.shape, np.uint8)
    for place, mask_DHW in enumerate(painted_masks(regions, masks_RDHW).values(), start=1):
        painted_DHW[mask_DHW] = place
    raw = _header(case, ()) + _turned(painted_DHW).tobytes()
    return _base64(zlib_ng.compress(raw, 6, wbits=GZIP_WINDOW))


def _header(case: CaseInfo, volumes: tuple[int, ...]) -> bytes:
    """The first 352 bytes of a NIfTI file on the copy's grid, where the scanner had it."""
    (z0, _), (y0, _), (x0, _) = case.bbox
    depth, height, width = case.shape
    to_whole = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_whole[:3, 3] = x0 + width - 1, y0 + height - 1, z0
    affine = np.asarray(case.affine) @ to_whole
    header = nib.Nifti1Header()
    header.set_data_shape((width, height, depth, *volumes))
    header.set_data_dtype(np.uint8)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(affine, code=_SCANNER)
    header.set_sform(affine, code=_SCANNER)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_max"] = _LEVELS
    if not volumes:
        header["intent_code"] = _LABELS
    return bytes(header.binaryblock) + bytes(4)


def _turned(array_DHW: NDArray[Any]) -> NDArray[Any]:
    """From LPS to RAS; a view."""
    return array_DHW[:, ::-1, ::-1]


def _columns(depth: int) -> int:
    return math.ceil(math.sqrt(depth))


def _whole_blocks(side: int) -> int:
    return side + -side % _BLOCK


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _quoted(text: str) -> str:
    return json.dumps(text).replace("<", "\\u003c")
