"""One case into the store: read, check, turn, crop, compress, and commit with the record that is written last.

Shapes: M modality, D H W voxels z y x in LPS, X Y Z voxels in the source's own order.
"""

import base64
import functools
import hashlib
from dataclasses import replace
from pathlib import Path
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
from storage.scans.nifti import NiftiError, SourceVolume, as_labels, read_volume
from storage.store.cohort_store import CohortStore, case_key
from storage.store.index import ROOT_KEY, decode_case, encode_case
from storage.store.layout import DEFAULT_LAYOUT, METADATA_KEY, Layout, encode_array

# Millimetres. Headers of one case differ in the last bits of a float32; grids that differ do so by far more.
_AFFINE_TOLERANCE = 1e-3


class _SourceCase:
    """A case's files, read and found to lie on one grid."""

    def __init__(self, case: Case, modalities: tuple[str, ...]) -> None:
        self.case = case
        self.modalities = modalities
        self.sources: dict[str, SourceFile] = {}
        self._files: dict[Path, SourceVolume] = {}
        self.first: SourceVolume | None = None
        self.first_path = Path()
        self.shape_XYZ: tuple[int, ...] = ()
        self.scans_DHW = [self._scan(modality) for modality in modalities]
        self.label_DHW = self._label() if case.label is not None else None
        self._files.clear()

    @property
    def affine(self) -> NDArray[np.float64]:
        if self.first is None:
            raise ValueError("a case needs at least one modality")
        return self.first.affine

    @property
    def header(self) -> bytes:
        if self.first is None:
            raise ValueError("a case needs at least one modality")
        return self.first.header

    def _scan(self, modality: str) -> NDArray[Any]:
        path, volume = self.case.files[modality], self.case.volumes.get(modality)
        read = self._read(path, modality, dimensions=3 if volume is None else 4, volume=volume)
        array: NDArray[Any] = read.array
        if volume is not None:
            if volume >= array.shape[3]:
                finding = f"{array.shape[3]} volumes, wanted one for {modality} at index {volume}"
                raise self.refused(path, finding, "download the file again")
            array = array[..., volume]
        self._check_grid(path, array.shape, read)
        return to_lps(array, read.affine)

    def _label(self) -> NDArray[np.uint8]:
        path = self.case.label
        if path is None:
            raise ValueError(f"{self.case.case_id} has no label")
        read = self._read(path, "label", dimensions=3, volume=None)
        self._check_grid(path, read.array.shape, read)
        try:
            labels = as_labels(read.array)
        except NiftiError as error:
            raise self.refused(path, error.finding, error.remedy) from None
        turned = to_lps(labels, read.affine)
        return np.asarray(turned, dtype=np.uint8)

    def _read(self, path: Path, role: str, *, dimensions: int, volume: int | None) -> SourceVolume:
        if path not in self._files:
            try:
                self._files[path] = read_volume(path, dimensions=dimensions)
            except NiftiError as error:
                raise self.refused(path, error.finding, error.remedy) from None
        read = self._files[path]
        self.sources[role] = SourceFile(
            name=path.name, sha256=read.sha256, size=read.size, mtime_ns=read.mtime_ns, volume=volume
        )
        return read

    def _check_grid(self, path: Path, shape: tuple[int, ...], read: SourceVolume) -> None:
        if self.first is None:
            self.first, self.first_path, self.shape_XYZ = read, path, tuple(shape)
            return
        remedy = f"resample it to the grid of {self.first_path.name}, or take the file of this exam"
        if tuple(shape) != self.shape_XYZ:
            finding = f"shape {tuple(shape)}, {self.first_path.name} has {self.shape_XYZ}"
            raise self.refused(path, finding, remedy)
        difference = float(np.abs(read.affine - self.first.affine).max())
        if difference > _AFFINE_TOLERANCE:
            finding = f"its affine differs from that of {self.first_path.name} by up to {difference:g} mm"
            raise self.refused(path, finding, remedy)

    def refused(self, path: Path, finding: str, remedy: str) -> CaseRefusedError:
        refusal = Refusal(case_id=self.case.case_id, file=str(path), finding=finding, remedy=remedy)
        return CaseRefusedError(refusal)


def convert_case(case: Case, store: CohortStore, *, layout: Layout = DEFAULT_LAYOUT) -> CaseInfo:
    """Write one case and commit it; what was there before under its id is replaced. The index is not touched.

    Raises CaseRefusedError with file, finding and remedy, and then changes nothing; InputError when the store fails.
    """
    arrays, info = read_source_case(case, store.settings.modalities, store.settings.convention)
    store.objects.delete(case_key(case.case_id, ROOT_KEY))  # uncommitted before anything else of it changes
    store.objects.delete_folder(case_key(case.case_id))
    stored: dict[str, NDArray[Any]] = {"image": arrays.image_MDHW}
    region_voxels: dict[str, int] = {}
    if arrays.label_DHW is not None:
        stored["label"] = arrays.label_DHW
        stored["foreground"], region_voxels = sample_foreground(arrays.label_DHW, case.case_id)
    records = {name: write_case_array(store, case.case_id, name, array, layout) for name, array in stored.items()}
    raw = encode_case(replace(info, region_voxels=region_voxels, arrays=records))
    store.objects.put(case_key(case.case_id, ROOT_KEY), raw)
    return decode_case(raw, case.case_id)


def read_source_case(
    case: Case, modalities: tuple[str, ...], convention: LabelConvention
) -> tuple[CaseArrays, CaseInfo]:
    """Read, check, turn and crop one case: the arrays that a store would hold, and the record without those of arrays.

    Raises CaseRefusedError with file, finding and remedy.
    """
    source = _SourceCase(case, modalities)
    box = _box_of(source)
    image_MDHW = _stack([scan[box_slices(box)] for scan in source.scans_DHW])
    label_DHW = _stored_labels(source, box, convention)
    return CaseArrays(image_MDHW, label_DHW), _describe(source, convention, box, image_MDHW)


def write_case_array(store: CohortStore, case_id: str, name: str, array: NDArray[Any], layout: Layout) -> ArrayRecord:
    """Store one array of a case, its zarr.json after its voxels, and return what the case's record says of it."""
    encoded = encode_array(name, array, layout)
    for key, data in encoded.objects.items():
        store.objects.put(case_key(case_id, f"{name}/{key}"), data)
    return ArrayRecord(
        shape=array.shape,
        dtype=array.dtype.name,
        metadata_sha256=hashlib.sha256(encoded.objects[METADATA_KEY]).hexdigest(),
        content_sha256=encoded.content_sha256,
    )


def _stored_labels(source: _SourceCase, box: Box, convention: LabelConvention) -> NDArray[np.uint8] | None:
    path = source.case.label
    if source.label_DHW is None or path is None:
        return None
    try:
        return convention.to_stored(np.ascontiguousarray(source.label_DHW[box_slices(box)]))
    except ValueError as error:
        remedy = "correct the file, or convert the cohort with --label-convention or --label-map if all is meant so"
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
    box = bounding_box(mask_DHW)
    if box is None:
        raise ValueError("a mask that is not empty has a box")
    return box


def _stack(scans_DHW: list[NDArray[Any]]) -> NDArray[Any]:
    """One array in the narrowest dtype that all scans share without loss."""
    dtype = np.result_type(*(scan.dtype for scan in scans_DHW))
    return np.stack([scan.astype(dtype, copy=False) for scan in scans_DHW])


def _describe(
    source: _SourceCase,
    convention: LabelConvention,
    box: Box,
    image_MDHW: NDArray[Any],
) -> CaseInfo:
    case = source.case
    affine = lps_affine(source.shape_XYZ, source.affine)
    depth, height, width = source.scans_DHW[0].shape
    brain_DHW = brain_mask(image_MDHW)
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
        source_header=base64.b64encode(source.header).decode(),
        brain_voxels=int(brain_DHW.sum()),
        mean=measured.mean,
        std=measured.std,
        minimum=measured.minimum,
        maximum=measured.maximum,
        percentiles=measured.percentiles,
        region_voxels={},
        sources=source.sources,
        arrays={},
        notes=case.notes,
    )
