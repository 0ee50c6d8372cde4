"""One case into the store: read, check, turn, crop, compress, and commit with the record that is written last.

Shapes: M modality, D H W voxels z y x in LPS, X Y Z voxels in the source's own order.
"""

import base64
import functools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.cases.foreground import sample_foreground
from storage.cases.grid import bounding_box, box_slices, lps_affine, orientation_of, to_lps
from storage.cases.info import ArrayRecord, Box, CaseArrays, CaseInfo, SourceFile, as_affine
from storage.cases.normalisation import brain_mask, measure_intensities
from storage.errors import CaseRefusedError, Refusal
from storage.labels.conventions import LabelConvention
from storage.scans.case import Case
from storage.scans.listing import ScanFile
from storage.scans.nifti import NiftiError, SourceVolume, as_labels, read_volume
from storage.store.cohort_store import CohortStore, case_key
from storage.store.index import ROOT_KEY, decode_case, encode_case
from storage.store.layout import encode_array

# Millimetres. Headers of one case differ in the last bits of a float32; grids that differ do so by far more.
_AFFINE_TOLERANCE = 1e-3


class _SourceCase:
    """A case's files, read and found to lie on one grid, the first scan's; raises CaseRefusedError."""

    shape_XYZ: tuple[int, ...]
    affine: NDArray[np.float64]
    header: bytes

    def __init__(self, case: Case, modalities: tuple[str, ...]) -> None:
        self.case = case
        self.modalities = modalities
        self.sources: dict[str, SourceFile] = {}
        self._files: dict[ScanFile, SourceVolume] = {}
        self.scans_DHW = [self._read(name, case.files[name], case.volumes.get(name)) for name in modalities]
        self.label_DHW = None if case.label is None else self._read("label", case.label, None)
        self._files.clear()

    @property
    def first_path(self) -> ScanFile:
        return self.case.files[self.modalities[0]]

    def refused(self, path: ScanFile, finding: str, remedy: str) -> CaseRefusedError:
        refusal = Refusal(case_id=self.case.case_id, file=str(path), finding=finding, remedy=remedy)
        return CaseRefusedError(refusal)

    def _read(self, role: str, path: ScanFile, volume: int | None) -> NDArray[Any]:
        """The voxels of a modality or of the label, DHW; `volume` is the index in a file of several."""
        try:
            if path not in self._files:
                self._files[path] = read_volume(path, dimensions=3 if volume is None else 4)
            read = self._files[path]
            self.sources[role] = SourceFile(
                name=path.name, sha256=read.sha256, size=read.size, mtime_ns=read.mtime_ns, volume=volume
            )
            array_XYZ = read.array
            if volume is not None:
                if volume >= array_XYZ.shape[3]:
                    finding = f"{array_XYZ.shape[3]} volumes, wanted one for {role} at index {volume}"
                    raise NiftiError(finding, "download the file again")
                array_XYZ = array_XYZ[..., volume]
            if role == self.modalities[0]:
                self.shape_XYZ, self.affine, self.header = array_XYZ.shape, read.affine, read.header
            self._check_grid(array_XYZ.shape, read.affine)
            return to_lps(as_labels(array_XYZ) if role == "label" else array_XYZ, read.affine)
        except NiftiError as error:
            raise self.refused(path, error.finding, error.remedy) from None

    def _check_grid(self, shape_XYZ: tuple[int, ...], affine: NDArray[np.float64]) -> None:
        remedy = f"resample it to the grid of {self.first_path.name}, or take the file of this exam"
        if shape_XYZ != self.shape_XYZ:
            raise NiftiError(f"shape {shape_XYZ}, {self.first_path.name} has {self.shape_XYZ}", remedy)
        difference = float(np.abs(affine - self.affine).max())
        if difference > _AFFINE_TOLERANCE:
            raise NiftiError(
                f"its affine differs from that of {self.first_path.name} by up to {difference:g} mm", remedy
            )


def convert_case(case: Case, store: CohortStore) -> CaseInfo:
    """Write one case and commit it; what was there before under its id is replaced. The index is not touched.

    Raises CaseRefusedError with file, finding and remedy, and then changes nothing; InputError when the store fails.
    """
    arrays, info = read_source_case(
        case,
        store.settings.modalities,
        case.convention or store.settings.convention,
        skull_stripped=store.task.skull_stripped,
    )
    store.remove_case(case.case_id)  # uncommitted before anything else of it changes
    stored: dict[str, NDArray[Any]] = {"image": arrays.image_MDHW}
    region_voxels: dict[str, int] = {}
    if arrays.label_DHW is not None:
        stored["label"] = arrays.label_DHW
        stored["foreground"], region_voxels = sample_foreground(arrays.label_DHW, case.case_id, store.task.regions)
    records: dict[str, ArrayRecord] = {}
    for name, array in stored.items():
        objects, records[name] = encode_array(name, array)
        for key, data in objects.items():
            store.objects.put(case_key(case.case_id, f"{name}/{key}"), data)
    raw = encode_case(replace(info, region_voxels=region_voxels, arrays=records))
    store.objects.put(case_key(case.case_id, ROOT_KEY), raw)
    return decode_case(raw, case.case_id)


def read_source_case(
    case: Case, modalities: tuple[str, ...], convention: LabelConvention, *, skull_stripped: bool = True
) -> tuple[CaseArrays, CaseInfo]:
    """Read, check, turn and crop one case: the arrays that a store would hold, and the record without those of arrays.

    Where it is not skull-stripped, statistics are over every voxel of the box: 0 is an intensity like any other there.
    Raises CaseRefusedError with file, finding and remedy.
    """
    source = _SourceCase(case, modalities)
    box = _box_of(source)
    image_MDHW = _stack([scan[box_slices(box)] for scan in source.scans_DHW])
    label_DHW = _stored_labels(source, box, convention)
    return CaseArrays(image_MDHW, label_DHW), _describe(
        source, convention, box, image_MDHW, skull_stripped=skull_stripped
    )


def _stored_labels(source: _SourceCase, box: Box, convention: LabelConvention) -> NDArray[np.uint8] | None:
    path = source.case.label
    if source.label_DHW is None or path is None:
        return None
    try:
        return convention.to_stored(np.ascontiguousarray(source.label_DHW[box_slices(box)]))
    except ValueError as error:
        remedy = "correct the file, or convert the cohort with --task or --label-map if all is meant so"
        raise source.refused(path, str(error), remedy) from None


def _box_of(source: _SourceCase) -> Box:
    """The box of every voxel that any modality or the label has non-zero. A scan without any is refused."""
    masks = {modality: scan != 0 for modality, scan in zip(source.modalities, source.scans_DHW, strict=True)}
    blank = [modality for modality, mask in masks.items() if not mask.any()]
    if len(blank) == len(masks):
        finding = "an empty brain: every voxel of every modality is 0"
        raise source.refused(source.first_path, finding, "download or export the scans again")
    if blank:
        finding = f"wanted a scan, every voxel of {blank[0]} is 0"
        remedy = "download or export it again, or, where the cohort does without, leave it out of --modalities"
        raise source.refused(source.case.files[blank[0]], finding, remedy)
    mask_DHW = functools.reduce(np.logical_or, masks.values())
    if source.label_DHW is not None:
        mask_DHW |= source.label_DHW != 0
    return bounding_box(mask_DHW)


def _stack(scans_DHW: list[NDArray[Any]]) -> NDArray[Any]:
    """One array in the narrowest dtype that all scans share without loss."""
    dtype = np.result_type(*(scan.dtype for scan in scans_DHW))
    return np.stack([scan.astype(dtype, copy=False) for scan in scans_DHW])


def _describe(
    source: _SourceCase, convention: LabelConvention, box: Box, image_MDHW: NDArray[Any], *, skull_stripped: bool
) -> CaseInfo:
    case = source.case
    affine = lps_affine(source.shape_XYZ, source.affine)
    depth, height, width = source.scans_DHW[0].shape
    brain_DHW = brain_mask(image_MDHW) if skull_stripped else np.ones(image_MDHW.shape[1:], dtype=np.bool_)
    measured = measure_intensities(image_MDHW, brain_DHW)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return CaseInfo(
        case_id=case.case_id,
        subject=case.subject,
        grade=case.grade,
        modalities=tuple(source.modalities),
        labelled=case.label is not None,
        label_convention=convention.name,
        label_lossy=convention.lossy,
        shape=(image_MDHW.shape[1], image_MDHW.shape[2], image_MDHW.shape[3]),
        bbox=box,
        original_shape=(depth, height, width),
        orientation="LPS",
        spacing=(float(sides[2]), float(sides[1]), float(sides[0])),
        affine=as_affine(affine),
        source_shape=(source.shape_XYZ[0], source.shape_XYZ[1], source.shape_XYZ[2]),
        source_orientation=orientation_of(source.affine),
        source_affine=as_affine(source.affine),
        task=case.task,
        source_header=base64.b64encode(source.header).decode(),
        brain_voxels=int(brain_DHW.sum()),
        **vars(measured),
        region_voxels={},
        sources=source.sources,
        arrays={},
        notes=case.notes,
    )
