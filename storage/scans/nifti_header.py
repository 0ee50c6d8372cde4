"""A NIfTI header as bytes to what it says: shape, type, where the voxels begin and where they lie in the world.

nibabel parses; what it would repair without a word is repaired, and said.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from storage.scans.listing import MAX_BYTES

_SINGULAR = 1e-12
# nibabel would print what it repairs, without the file's name.
_SILENT = logging.getLogger(__name__)
_SILENT.disabled = True


class NiftiError(Exception):
    """A file that cannot be used: `finding` says what is wrong, `remedy` what to do."""

    def __init__(self, finding: str, remedy: str = "download or export the file again") -> None:
        super().__init__(finding)
        self.finding = finding
        self.remedy = remedy


class FileNote(NamedTuple):
    """What was made of a file that is not quite as it should be. `kind` is the same for all files of that kind."""

    kind: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One affine of a header. A `quaternion` of about 180° (LPS) says directions to a thousandth, by its rounding."""

    affine: NDArray[np.float64]
    quaternion: bool


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a file's voxels lie, by what its header says: first the form that nibabel takes.

    `coded` is false where the header has a code for neither, and the affine is nibabel's assumption. `said` is false
    then, and for straight axes from an origin of 0, as programs write that pass arrays on without their header.
    """

    forms: tuple[Form, ...]
    coded: bool
    said: bool
    notes: tuple[FileNote, ...] = ()

    @property
    def affine(self) -> NDArray[np.float64]:
        """The one that nibabel takes."""
        return self.forms[0].affine


def parse_header(data: bytes) -> nib.Nifti1Header:
    """The header that `data` begins with as nibabel understands it, version 1 or 2, either byte order."""
    sizes = {int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")}
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header if 348 in sizes else None
    if kind is None or len(data) < kind.template_dtype.itemsize:
        raise NiftiError(
            "not a NIfTI file, whatever its name", "export it as NIfTI (.nii, .nii.gz) or download it again"
        )
    try:
        header = kind(data[: kind.template_dtype.itemsize], check=False)
        header.check_fix(_SILENT)
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


def data_offset(header: nib.Nifti1Header) -> int:
    """The byte at which voxels begin. A header that says 0 means the first byte that they may have, after its own."""
    return int(header.get_data_offset()) or header.single_vox_offset


def announced_bytes(header: nib.Nifti1Header) -> int:
    """Bytes that the header says the decompressed file has; raises NiftiError when that is absurd."""
    offset = float(header["vox_offset"])
    voxels = math.prod(int(side) for side in header.get_data_shape())
    size = voxels * header.get_data_dtype().itemsize
    if not (offset == 0 or header.template_dtype.itemsize <= offset <= MAX_BYTES) or size > MAX_BYTES:
        raise NiftiError(f"the header announces {size} bytes of voxels at byte {offset:g}")
    return data_offset(header) + size


def place_of(header: nib.Nifti1Header, data: bytes) -> Placement:
    """Where the voxels lie by `header`, which was parsed from `data`; raises NiftiError where it cannot be used."""
    coded = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    said = (_form(header.get_sform, quaternion=False), _form(header.get_qform, quaternion=True))
    forms = tuple(form for form in said if form is not None)
    if not coded:
        forms = (Form(affine=np.asarray(header.get_base_affine(), dtype=np.float64), quaternion=False),)
    if not forms or not _usable(forms[0].affine):
        raise NiftiError(
            "the header's orientation is not valid: its affine is singular or not finite",
            "repair the header's sform or qform",
        )
    affine = forms[0].affine
    notes: list[FileNote] = []
    if not type(header)(data[: header.template_dtype.itemsize], check=False)["pixdim"][1:4].all():
        notes.append(FileNote("voxels 0 mm wide by their header, read as 1 mm"))
    if int(header["sform_code"]) > 0 and said[0] is None:
        notes.append(FileNote("sform that is no affine, the qform is taken"))
    if not coded:
        notes.append(FileNote(f"no orientation in the header, read as {''.join(nib.aff2axcodes(affine))}"))
    straight = np.array_equal(affine[:3], np.diag(np.diag(affine))[:3])
    return Placement(forms=forms, coded=coded, said=coded and not straight, notes=tuple(notes))


def _form(get: Callable[..., Any], *, quaternion: bool) -> Form | None:
    """One of the header's two affines; None where it has no code, or is none that can be used."""
    try:
        affine, code = get(coded=True)
    except Exception:  # an impossible quaternion; the other form may do
        return None
    if affine is None or code == 0 or not _usable(affine):
        return None
    return Form(affine=np.asarray(affine, dtype=np.float64) + 0.0, quaternion=quaternion)  # -0.0 becomes 0.0


def _usable(affine: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(affine).all()) and abs(float(np.linalg.det(affine[:3, :3]))) >= _SINGULAR
