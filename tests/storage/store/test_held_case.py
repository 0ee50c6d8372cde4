"""A case in memory is the same from a store and from its files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from storage import CohortStore, InputError, convert_case, create_store, find_cases, normalisation_coefficients
from storage.cases.patch import cut_patch
from storage.labels.conventions import BRATS_123, BRATS_124, MODALITIES
from storage.labels.tasks import GLI_2021_TASK
from storage.store.held_case import hold_source, hold_stored


@pytest.fixture(scope="module")
def store(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    made = create_store(tmp_path_factory.mktemp("held") / "store")
    for case in find_cases(phantom_source).cases[:2]:
        convert_case(case, made)
    made.rebuild_index()
    return made


def test_a_store_and_the_files_hold_the_same(phantom_source: Path, store: CohortStore) -> None:
    for case in find_cases(phantom_source).cases[:2]:
        stored, read = hold_stored(store, case.case_id), hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK)
        for one, other in zip(stored.arrays, read.arrays, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        same = {field.name for field in dataclasses.fields(stored.case)} - {"arrays", "region_voxels", "digest"}
        assert all(getattr(stored.case, name) == getattr(read.case, name) for name in same)
        digests = [
            {name: held.case.arrays[name].content_sha256 for name in ("image", "label")} for held in (stored, read)
        ]
        assert digests[0] == digests[1]
        for origin, shape in (((3, 4, 5), (6, 7, 8)), ((-3, 0, 40), (20, 9, 90))):
            patch = store.read_patch(case.case_id, origin, shape)
            for one, other in zip(patch, cut_patch(read.arrays, origin, shape), strict=True):
                np.testing.assert_array_equal(one, other)


def test_another_case_is_refused(phantom_source: Path, store: CohortStore) -> None:
    held = hold_stored(store, store.case_ids[0])
    with pytest.raises(InputError, match="wanted case other, only"):
        held.read_case("other")


def test_a_label_that_does_not_fit_is_left_out(phantom_source: Path, tmp_path: Path) -> None:
    case = find_cases(phantom_source).cases[0]
    held = hold_source(case, MODALITIES, BRATS_123, GLI_2021_TASK)  # its label has fours
    assert held.case.case_id == case.case_id and held.arrays.label_DHW is None and not held.case.labelled
    assert held.label_refused is not None and f"{case.label}): label values [4]" in held.label_refused
    assert hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK).label_refused is None


def test_a_bad_file_is_refused_by_name(phantom_source: Path, tmp_path: Path) -> None:
    case = find_cases(phantom_source).cases[0]
    bad = tmp_path / case.files["t1"].name
    bad.write_bytes(case.files["t1"].read_bytes()[:-50])
    broken = dataclasses.replace(case, files={**case.files, "t1": bad})
    with pytest.raises(InputError, match=f"{case.case_id} .*{bad.name}"):
        hold_source(broken, MODALITIES, BRATS_124, GLI_2021_TASK)


def test_a_scan_that_is_missing_is_zero_and_said_to_be(phantom_source: Path) -> None:
    whole = find_cases(phantom_source).cases[0]
    lacking = dataclasses.replace(whole, files={role: file for role, file in whole.files.items() if role != "t1ce"})
    held, full = (hold_source(case, MODALITIES, BRATS_124, GLI_2021_TASK) for case in (lacking, whole))
    missing = MODALITIES.index("t1ce")
    assert held.case.modalities == MODALITIES and held.case.shape == full.case.shape
    assert held.case.notes == ("scans that are missing, taken as 0: t1ce",)
    assert not held.arrays.image_MDHW[missing].any()
    for number in set(range(4)) - {missing}:
        np.testing.assert_array_equal(held.arrays.image_MDHW[number], full.arrays.image_MDHW[number])
    for one, other in zip(
        normalisation_coefficients(held.case, "zscore"), normalisation_coefficients(full.case, "zscore"), strict=True
    ):
        assert one[missing] == 0 != other[missing]
        np.testing.assert_array_equal(np.delete(one, missing), np.delete(other, missing))
