"""A case's files, read, checked and brought onto one grid, with a background of 0; what was mended is noted.

Shapes: D H W are voxels z y x in LPS, X Y Z voxels in a file's own axis order.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from storage.cases.grid import corner_distances, to_lps
from storage.cases.info import SourceFile
from storage.cases.placing import GridFile, describe_mismatch, is_near, turn_to_grid
from storage.errors import CaseRefusedError, Refusal
from storage.scans.case import Case
from storage.scans.listing import Place, ScanFile
from storage.scans.nifti import SourceVolume, read_segmentation, read_volume
from storage.scans.nifti_header import FileNote, NiftiError
from storage.scans.voxel_values import without_background

LABEL = "label"
# Millimetres: headers of one case differ in a float32's last bits, and nobody needs to hear of it.
_NOTHING = 0.01


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
        self.shape_XYZ, self.affine = self._grid.array_XYZ.shape, self._grid.place.affine
        self.header = self._grid.header
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

    def refused(self, path: Place, finding: str, remedy: str) -> CaseRefusedError:
        refusal = Refusal(case_id=self.case.case_id, file=str(path), finding=finding, remedy=remedy)
        return CaseRefusedError(refusal)

    def _read_all(self) -> list[GridFile]:
        read: dict[ScanFile, SourceVolume] = {}
        paths: Mapping[str, ScanFile] = {name: self.case.files[name] for name in self.modalities}
        if self.case.label is not None:
            paths = {**paths, LABEL: self.case.label}
        return [self._read(role, path, read) for role, path in paths.items()]

    def _read(self, role: str, path: ScanFile, known: dict[ScanFile, SourceVolume]) -> GridFile:
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
            if not is_near(off, array_XYZ.shape, first, other):
                self.note("sform and qform differ, the sform is taken", f"{role} by {off.max():.3g} mm")
        return GridFile(role=role, path=path, place=read.place, header=read.header, array_XYZ=array_XYZ)

    def _place(self, file: GridFile) -> NDArray[Any]:
        """The file's voxels in the order of the grid, XYZ."""
        found = turn_to_grid(file, self._grid)
        if found is not None:
            turn, off = found
            if off.max() > _NOTHING:
                self.note("grids a little apart, taken as one", f"{file.role} by {off.max():.3g} mm")
            turned: NDArray[Any] = apply_orientation(file.array_XYZ, turn)
            return turned
        finding, remedy, trustable = describe_mismatch(file, self._grid)
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


def _shared_grid(files: list[GridFile], *, scans: int) -> GridFile:
    """The first scan where all files lie on its grid; else one on whose grid most do, and whose header says where."""

    def rank(grid: GridFile) -> tuple[int, bool]:
        shared = sum(turn_to_grid(file, grid) is not None for file in files)
        return shared, shared < len(files) and grid.place.said

    return max(files[:scans], key=rank)
