"""A case's files, read, checked and brought onto one grid, with a background of 0; what was mended is noted.

Shapes: D H W are voxels z y x in LPS, X Y Z voxels in a file's own axis order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from storage.cases.grid import corner_distances, orientation_of, to_lps, turn_onto
from storage.cases.info import SourceFile
from storage.errors import CaseRefusedError, Refusal
from storage.scans.case import Case
from storage.scans.listing import ScanFile
from storage.scans.nifti import SourceVolume, read_segmentation, read_volume
from storage.scans.nifti_header import FileNote, Form, NiftiError
from storage.scans.voxel_values import without_background

LABEL = "label"
_TRUST = "say --trust-grid (convert.py, predict.py)"

# Millimetres: headers of one case differ in a float32's last bits, and nobody needs to hear of it.
_NOTHING = 0.01
# Share of a voxel's smallest side: nearer than that every voxel still lies on its own, and not on the next one. A
# header rounded to three digits is 0.1 mm off at the far corner.
_SAME_VOXEL = 0.25
# Radians by which a quaternion in single precision may be off near half a turn, where its real part is lost: 1.29e-3
# was the most of 20,000, as nibabel reads them.
_QUATERNION = 1.3e-3


@dataclass(frozen=True, kw_only=True)
class _File:
    """One role's voxels as its file has them."""

    role: str
    path: ScanFile
    read: SourceVolume
    array_XYZ: NDArray[Any]


class SourceCase:
    """What the files of a case say; raises CaseRefusedError, naming file, finding and remedy.

    Every file is turned by its own header onto the grid of one scan: the first, or the first of those whose grid most
    files share where one lies elsewhere. `shape_XYZ`, `affine` and `header` are that scan's.
    """

    def __init__(self, case: Case, modalities: tuple[str, ...], *, skull_stripped: bool) -> None:
        self.case = case
        self.modalities = modalities
        self.sources: dict[str, SourceFile] = {}
        self._notes: dict[str, list[str]] = {}
        files = self._read_all()
        self._grid = _shared_grid(files, scans=len(modalities))
        self.shape_XYZ, self.affine = self._grid.array_XYZ.shape, self._grid.read.affine
        self.header = self._grid.read.header
        placed = {file.role: to_lps(self._place(file), self.affine) for file in files}
        self.label_DHW: NDArray[np.uint8] | None = placed.pop(LABEL, None)
        self.scans_DHW = [self._blacken(role, scan) if skull_stripped else scan for role, scan in placed.items()]

    @property
    def first_path(self) -> ScanFile:
        return self.case.files[self.modalities[0]]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was mended, a line for each kind."""
        return tuple(f"{kind}: {', '.join(details)}" for kind, details in self._notes.items())

    def note(self, kind: str, detail: str) -> None:
        self._notes.setdefault(kind, []).append(detail)

    def refused(self, path: ScanFile, finding: str, remedy: str) -> CaseRefusedError:
        refusal = Refusal(case_id=self.case.case_id, file=str(path), finding=finding, remedy=remedy)
        return CaseRefusedError(refusal)

    def _read_all(self) -> list[_File]:
        read: dict[ScanFile, SourceVolume] = {}
        paths: Mapping[str, ScanFile] = {name: self.case.files[name] for name in self.modalities}
        if self.case.label is not None:
            paths = {**paths, LABEL: self.case.label}
        return [self._read(role, path, read) for role, path in paths.items()]

    def _read(self, role: str, path: ScanFile, known: dict[ScanFile, SourceVolume]) -> _File:
        volume = self.case.volumes.get(role)
        try:
            if path not in known:
                axes = 3 if volume is None else 4
                known[path] = read_segmentation(path) if role == LABEL else read_volume(path, dimensions=axes)
                self._note_all(role, known[path].notes)
            read = known[path]
            self.sources[role] = SourceFile(
                name=path.name, sha256=read.sha256, size=read.size, mtime_ns=read.mtime_ns, volume=volume
            )
            array_XYZ = read.array
            if volume is not None:
                if volume >= array_XYZ.shape[3]:
                    finding = f"{array_XYZ.shape[3]} volumes, wanted one for {role} at index {volume}"
                    raise NiftiError(finding, "download the file again")
                array_XYZ = array_XYZ[..., volume]
        except NiftiError as error:
            raise self.refused(path, error.finding, error.remedy) from None
        if len(read.place.forms) > 1:
            first, other = read.place.forms
            off = corner_distances(array_XYZ.shape, first.affine, other.affine)
            if not _is_near(off, array_XYZ.shape, first, other):
                self.note("sform and qform differ, the sform is taken", f"{role} by {off.max():.3g} mm")
        return _File(role=role, path=path, read=read, array_XYZ=array_XYZ)

    def _place(self, file: _File) -> NDArray[Any]:
        """The file's voxels in the order of the grid, XYZ."""
        found = _turn(file, self._grid)
        if found is not None:
            turn, off = found
            if off.max() > _NOTHING:
                self.note("grids a little apart, taken as one", f"{file.role} by {off.max():.3g} mm")
            turned: NDArray[Any] = apply_orientation(file.array_XYZ, turn)
            return turned
        finding, remedy, trustable = _describe_mismatch(file, self._grid)
        if self.case.trust_grid and trustable:
            self.note("voxels taken to lie alike whatever the header says (--trust-grid)", file.role)
            return file.array_XYZ
        raise self.refused(file.path, finding, remedy)

    def _blacken(self, role: str, scan_DHW: NDArray[Any]) -> NDArray[Any]:
        blackened, notes = without_background(scan_DHW)
        self._note_all(role, notes)
        return blackened

    def _note_all(self, role: str, notes: tuple[FileNote, ...]) -> None:
        for kind, detail in notes:
            self.note(kind, f"{role} {detail}".strip())


def _shared_grid(files: list[_File], *, scans: int) -> _File:
    """The first scan where all files lie on its grid; else one on whose grid most do, and whose header says where."""

    def rank(grid: _File) -> tuple[int, bool]:
        shared = sum(_turn(file, grid) is not None for file in files)
        return shared, shared < len(files) and grid.read.place.said

    return max(files[:scans], key=rank)


def _turn(file: _File, grid: _File) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """How the file's axes are turned onto the grid, and how far its corners are off; None where it lies elsewhere."""
    here, there = file.read.place, grid.read.place
    for onto, form in product(there.forms, here.forms):  # programs differ in which of a header's two they keep
        found = turn_onto(file.array_XYZ.shape, form.affine, grid.array_XYZ.shape, onto.affine)
        if found is None or not _is_near(found[1], grid.array_XYZ.shape, onto, form):
            continue
        # What nibabel assumes where a header says nothing may fit by chance, and is no reason to flip a scan.
        if (here.coded and there.coded) or np.array_equal(found[0], [[0, 1], [1, 1], [2, 1]]):
            return found
    return None


def _describe_mismatch(file: _File, grid: _File) -> tuple[str, str, bool]:
    """Finding and remedy for a file that lies elsewhere, and whether --trust-grid may overrule its header."""
    name, shape = grid.path.name, file.array_XYZ.shape
    resample = f"resample it to the grid of {name}"
    if shape != grid.array_XYZ.shape:
        finding = f"shape {shape}, {name} has {grid.array_XYZ.shape}"
        return finding, f"{resample}, or take the file of this exam", False
    here, there = file.read.place, grid.read.place
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


def _is_near(off: NDArray[np.float64], shape: tuple[int, ...], one: Form, other: Form) -> bool:
    """Whether corners that are `off` by so much lie on their own voxels still, but for what a quaternion rounds."""
    sides = np.linalg.norm(one.affine[:3, :3], axis=0)
    near = _SAME_VOXEL * float(sides.min())
    rounded = _QUATERNION * float(np.linalg.norm(sides * shape)) if one.quaternion or other.quaternion else 0.0
    return bool(off.min() <= near and off.max() <= near + rounded)
