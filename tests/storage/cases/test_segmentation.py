"""A segmentation lies over its scans: same grid, same affine, same header, whatever the source's are."""

import dataclasses
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from storage import convert_case, create_store, find_cases, region_masks
from storage.cases.grid import box_slices
from storage.cases.segmentation import encode_empty, encode_probabilities, encode_segmentation
from storage.labels.conventions import BRATS_124, MODALITIES, MSD
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS, MSD_TASK, TASKS
from storage.scans.nifti_header import NiftiError
from storage.store.held_case import HeldCase, hold_source, hold_stored

# The one field that must differ, and its companion: scans are int16 or float, segmentations uint8.
MAY_DIFFER = {"datatype", "bitpix"}


def decode(raw: bytes) -> Any:
    data = gzip.decompress(raw)
    kind = nib.Nifti2Image if int.from_bytes(data[:4], "little") == 540 else nib.Nifti1Image
    return kind.from_stream(io.BytesIO(data))


def whole_label(held: HeldCase) -> Any:
    full = np.zeros(held.case.original_shape, np.uint8)
    full[box_slices(held.case.bbox)] = held.arrays.label_DHW
    return full


def tilted() -> Any:
    """An oblique affine with its axes in the order z x y, two of them reversed, and sides of 1, 2 and 3 mm."""
    cosine, sine = np.cos(0.2), np.sin(0.2)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, -2, 0], [0, 0, 3], [-1, 0, 0]])
    affine[:3, 3] = (-12.5, 40.25, 7)
    return affine


def with_codes(header: Any) -> Any:
    header.set_sform(tilted(), code=4)
    header.set_qform(tilted(), code=2)
    header["descrip"] = b"made by hand"
    header["toffset"] = 3.5
    header.set_xyzt_units("mm", "sec")
    return header


@pytest.fixture
def write_case(tmp_path: Path) -> Callable[..., Path]:
    """A case of random voxels with the affine and kind of header asked for."""

    def write(kind: type, header: Any) -> Path:
        random = np.random.default_rng(3)
        shape = (9, 11, 7)
        label = np.zeros(shape, np.uint8)
        label[2:7, 3:9, 2:6] = random.choice([0, 1, 2, 4], size=(5, 6, 4))
        folder = tmp_path / "source" / "BraTS20_Training_001"
        folder.mkdir(parents=True)
        for modality in MODALITIES:
            scan = np.zeros(shape, np.int16)
            scan[1:8, 2:10, 1:6] = random.integers(1, 1000, size=(7, 8, 5))
            own = header.copy()
            own.set_data_dtype(np.int16)
            own["cal_max"] = 1000
            nib.save(kind(scan, None, own), folder / f"BraTS20_Training_001_{modality}.nii.gz")
        own = header.copy()
        own.set_data_dtype(np.uint8)
        nib.save(kind(label, None, own), folder / "BraTS20_Training_001_seg.nii.gz")
        return tmp_path / "source"

    return write


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (nib.Nifti1Image, with_codes(nib.Nifti1Header())),
        (nib.Nifti1Image, with_codes(nib.Nifti1Header(endianness=">"))),
        (nib.Nifti2Image, with_codes(nib.Nifti2Header())),
    ],
    ids=["nifti1", "big-endian", "nifti2"],
)
def test_the_label_comes_back_as_it_was(
    kind: type, header: Any, write_case: Callable[..., Path], tmp_path: Path
) -> None:
    (case,) = find_cases(write_case(kind, header)).cases
    store = create_store(tmp_path / "store")
    convert_case(case, store)
    store.rebuild_index()
    from_file, from_store = hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK), hold_stored(store, case.case_id)
    assert case.label is not None
    truth, scan = nib.load(case.label), nib.load(case.files[MODALITIES[0]])
    written = encode_segmentation(whole_label(from_file), from_file.case, BRATS_124)
    assert written == encode_segmentation(whole_label(from_store), from_store.case, BRATS_124)
    image = decode(written)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(truth.dataobj))
    np.testing.assert_array_equal(image.affine, scan.affine)
    assert image.header.get_data_dtype() == np.uint8 and image.header["cal_max"] == 0
    assert type(image.header) is type(scan.header) and image.header.endianness == scan.header.endianness
    same = set(image.header) - MAY_DIFFER - {"cal_max"}
    assert all(image.header[field].tobytes() == scan.header[field].tobytes() for field in same)


def test_a_store_without_headers_gives_the_grid_all_the_same(write_case: Callable[..., Path]) -> None:
    (case,) = find_cases(write_case(nib.Nifti1Image, with_codes(nib.Nifti1Header()))).cases
    held = hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK)
    old = dataclasses.replace(held.case, source_header="")
    image = decode(encode_segmentation(whole_label(held), old, BRATS_124))
    assert case.label is not None
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(nib.load(case.label).dataobj))
    np.testing.assert_allclose(image.affine, tilted(), atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), tilted(), atol=1e-5)
    assert "source_header" not in old.to_attributes()


def test_values_are_those_of_the_convention_asked_for(phantom_source: Path) -> None:
    case = find_cases(phantom_source).cases[0]
    held = hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK)
    stored = whole_label(held)
    for convention in (task.convention for task in TASKS.values() if task.holds(GLI_2021_TASK)):
        image = decode(encode_segmentation(stored, held.case, convention))
        back = convention.to_stored(np.asanyarray(image.dataobj))
        assert case.label is not None
        truth = BRATS_124.to_stored(np.asanyarray(nib.load(case.label).dataobj))
        np.testing.assert_array_equal(back, truth)
    assert MSD.to_source(np.array([[[1, 2, 3]]], np.uint8)).ravel().tolist() == [2, 1, 3]


def test_probabilities_lie_on_the_same_grid(write_case: Callable[..., Path]) -> None:
    (case,) = find_cases(write_case(nib.Nifti1Image, with_codes(nib.Nifti1Header()))).cases
    held = hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK)
    regions = region_masks(whole_label(held), GLIOMA_REGIONS).astype(np.float32) * np.float32(0.3)
    image = decode(encode_probabilities(regions, held.case))
    assert image.shape == (9, 11, 7, 3) and image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, nib.load(case.files["t1"]).affine)
    assert case.label is not None
    truth = np.asanyarray(nib.load(case.label).dataobj)
    for index, values in enumerate(([1, 2, 4], [1, 4], [4])):
        np.testing.assert_array_equal(np.asanyarray(image.dataobj)[..., index] > 0, np.isin(truth, values))


def test_a_case_of_a_four_dimensional_file_gets_three_dimensions(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    image = nib.Nifti1Image(random.integers(0, 9, size=(6, 5, 4, 4)).astype(np.int16), tilted())
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "imagesTr" / "BRATS_001.nii.gz")
    label = random.integers(0, 4, size=(6, 5, 4)).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, tilted()), tmp_path / "labelsTr" / "BRATS_001.nii.gz")
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (case,) = find_cases(tmp_path).cases
    held = hold_source(case, MODALITIES, MSD, MSD_TASK)
    written = decode(encode_segmentation(whole_label(held), held.case, MSD))
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), label)
    np.testing.assert_array_equal(written.affine, nib.load(case.files["t1"]).affine)


@pytest.mark.parametrize("cut", [0, 40])
def test_an_empty_segmentation_needs_no_more_than_a_scans_header(cut: int, tmp_path: Path) -> None:
    header = with_codes(nib.Nifti1Header())
    header["cal_max"] = 900
    voxels = np.random.default_rng(0).random((4, 5, 6, 2)).astype(np.float32)
    scan, wanted = tmp_path / "scan.nii.gz", nib.Nifti1Image(voxels, None, header)
    whole = gzip.compress(wanted.to_bytes())
    scan.write_bytes(whole[: len(whole) - cut])
    empty = decode(encode_empty(scan))
    assert empty.shape == (4, 5, 6) and empty.get_data_dtype() == np.uint8 and not np.asanyarray(empty.dataobj).any()
    np.testing.assert_array_equal(empty.affine, header.get_best_affine())
    assert empty.header["cal_max"] == 0 and empty.header["descrip"] == b"made by hand"
    scan.write_bytes(b"")
    with pytest.raises(NiftiError):
        encode_empty(scan)
