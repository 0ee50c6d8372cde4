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
from storage.cases.grid import bounding_box, box_slices, lps_affine, orientation_of
from storage.cases.info import ArrayRecord, Box, CaseArrays, CaseInfo, as_affine
from storage.cases.normalisation import IntensityStatistics, brain_mask, measure_intensities
from storage.cases.source_case import SourceCase
from storage.labels.conventions import LabelConvention
from storage.scans.case import Case
from storage.store.cohort_store import CohortStore, case_key
from storage.store.index import ROOT_KEY, decode_case, encode_case
from storage.store.layout import encode_array

# What goes through single precision, and one divided by it too.
_SMALLEST, _LARGEST = 1e-35, 1e35


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


def correct_grade(store: CohortStore, info: CaseInfo, grade: str | None) -> CaseInfo:
    """Commit a stored case anew with another grade; its voxels stay."""
    raw = encode_case(replace(info, grade=grade))
    store.objects.put(case_key(info.case_id, ROOT_KEY), raw)
    return decode_case(raw, info.case_id)


def read_source_case(
    case: Case, modalities: tuple[str, ...], convention: LabelConvention, *, skull_stripped: bool = True
) -> tuple[CaseArrays, CaseInfo]:
    """Read, check, turn and crop one case: the arrays that a store would hold, and the record without those of arrays.

    Without `skull_stripped` scans stay as they are, and all of the box counts as brain.
    Raises CaseRefusedError with file, finding and remedy.
    """
    source = SourceCase(case, modalities, skull_stripped=skull_stripped)
    box = _box_of(source)
    image_MDHW = _stack([scan[box_slices(box)] for scan in source.scans_DHW])
    label_DHW = _stored_labels(source, box, convention)
    brain_DHW = brain_mask(image_MDHW) if skull_stripped else np.ones(image_MDHW.shape[1:], dtype=bool)
    return CaseArrays(image_MDHW, label_DHW), _describe(source, convention, box, image_MDHW, brain_DHW)


def _stored_labels(source: SourceCase, box: Box, convention: LabelConvention) -> NDArray[np.uint8] | None:
    path = source.case.label
    if source.label_DHW is None or path is None:
        return None
    try:
        return convention.to_stored(np.ascontiguousarray(source.label_DHW[box_slices(box)]))
    except ValueError as error:
        known = {value: stored for value, stored in convention.stored_by_source.items() if value}
        unknown = dict.fromkeys(set(np.unique(source.label_DHW).tolist()) - set(convention.stored_by_source), 0)
        pairs = " ".join(f"{value} {stored}" for value, stored in sorted({**known, **unknown}.items()))
        remedy = (
            "correct the file, or convert the cohort with --task or --label-map if all is meant so "
            f"(--label-map {pairs} where it means background)"
        )
        raise source.refused(path, str(error), remedy) from None


def _box_of(source: SourceCase) -> Box:
    """The box of every voxel that any modality or the label has non-zero. A scan without any is refused."""
    masks = {modality: scan != 0 for modality, scan in zip(source.modalities, source.scans_DHW, strict=True)}
    blank = [modality for modality, mask in masks.items() if not mask.any()]
    if len(blank) == len(masks):
        finding = "an empty brain: every voxel of every modality is 0, or what its background is"
        raise source.refused(source.first_path, finding, "download or export the scans again")
    if blank:
        finding = f"wanted a scan, every voxel of {blank[0]} is 0, or what its background is"
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


def _measure(source: SourceCase, image_MDHW: NDArray[Any], brain_DHW: NDArray[np.bool_]) -> IntensityStatistics:
    """Statistics over the brain; a scan of one value is noted, one beyond single precision refused."""
    for modality, scan_DHW in zip(source.modalities, image_MDHW, strict=True):
        largest = max(abs(float(scan_DHW.max())), abs(float(scan_DHW.min())))
        if not _SMALLEST <= largest <= _LARGEST:
            finding = f"its largest number is {largest:.3g}, beyond what a network computes with"
            raise source.refused(source.case.files[modality], finding, "scale the scan, to thousands, say")
    measured = measure_intensities(image_MDHW, brain_DHW)
    for modality, low, high in zip(source.modalities, measured.minimum, measured.maximum, strict=True):
        if low == high:
            source.note("one value all over the brain, of which a network learns nothing", f"{modality} {low:g}")
    return measured


def _describe(
    source: SourceCase,
    convention: LabelConvention,
    box: Box,
    image_MDHW: NDArray[Any],
    brain_DHW: NDArray[np.bool_],
) -> CaseInfo:
    case = source.case
    affine = lps_affine(source.shape_XYZ, source.affine)
    depth, height, width = source.scans_DHW[0].shape
    measured = _measure(source, image_MDHW, brain_DHW)
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
        notes=(*case.notes, *source.notes),
    )
