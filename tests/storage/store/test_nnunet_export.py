"""A store as nnU-Net's raw format: what nnU-Net demands of it, and the same voxels and meanings when read again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from storage import CohortStore, InputError, create_store, find_cases
from storage.labels.conventions import BRATS_124
from storage.labels.tasks import TASKS
from storage.scans.dataset_json import check_dataset_folder
from storage.scans.label_names import convention_by_names
from storage.store.nnunet_export import dataset_convention, describe_dataset, export_case, finish_export

RAS = np.array([[1.0, 0, 0, -9], [0, 0, 1.5, -4], [0, 1.25, 0, 3], [0, 0, 0, 1]])  # y and z swapped, too


@pytest.fixture
def writer(case_writer: type[Any]) -> Any:
    return case_writer(affine=RAS)


def test_a_store_written_for_nnunet_and_read_again(
    tmp_path: Path, writer: Any, convert_folder: Callable[..., CohortStore]
) -> None:
    sources = {case_id: writer.write(tmp_path / "in", case_id, seed=seed) for seed, case_id in enumerate("ABC")}
    sources["C"].pop("label").unlink()
    store = convert_folder(tmp_path / "in")
    folder = tmp_path / "Dataset101_BraTS"
    for case_id in store.case_ids:
        export_case(store, case_id, folder)
    assert not (folder / "dataset.json").exists()
    finish_export(store, folder)

    assert json.loads((folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"},
        "labels": {"background": 0, "whole tumour": [1, 2, 3], "tumour core": [1, 3], "enhancing tumour": 3},
        "regions_class_order": [2, 1, 3],
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "tissues": {"1": "necrotic_or_non_enhancing_core", "2": "edema", "3": "enhancing"},
    }
    found = find_cases(folder)
    assert [(case.case_id, next(iter(case.files.values())).parent.name) for case in found.cases] == [
        ("A", "imagesTr"),
        ("B", "imagesTr"),
        ("C", "imagesTs"),
    ]
    assert found.refused == () == found.notices
    for case in found.cases:
        for role, path in sources[case.case_id].items():
            before, again = nib.load(path), nib.load(str(case.label if role == "label" else case.files[role]))
            np.testing.assert_array_equal(before.affine, again.affine)
            voxels = np.asanyarray(again.dataobj)
            if role == "label":
                assert case.convention is not None and set(np.unique(voxels)) == {0, 1, 2, 3}
                meant = BRATS_124.to_stored(np.asanyarray(before.dataobj))
                np.testing.assert_array_equal(case.convention.to_stored(voxels), meant)
            else:
                assert again.get_data_dtype() == np.int16
                np.testing.assert_array_equal(voxels, np.asanyarray(before.dataobj))
    assert [case.label is None for case in found.cases] == [False, False, True]


@pytest.mark.parametrize("name", TASKS)
def test_every_tasks_labels_are_as_nnunet_wants_them_and_mean_the_same_again(tmp_path: Path, name: str) -> None:
    store = create_store(tmp_path / "store", task=TASKS[name])
    description = describe_dataset(store)
    labels = {title: values for title, values in description["labels"].items() if title != "background"}
    listed = {title: values if isinstance(values, list) else [values] for title, values in labels.items()}
    values = sorted({value for each in listed.values() for value in each})
    assert values == list(range(1, len(values) + 1))
    for title, region in zip(listed, TASKS[name].regions, strict=True):
        stored = dataset_convention(store).stored_by_source
        assert {stored[value] for value in listed[title]} == set(region.labels)
    if any(isinstance(each, list) for each in labels.values()):
        for value in values:  # as nnU-Net makes labels of regions: each in its turn, over those before
            painted = 0
            for each, written in zip(listed.values(), description["regions_class_order"], strict=True):
                painted = written if value in each else painted
            assert painted == value
    else:
        assert "regions_class_order" not in description
    assert all(len(each) > 1 for each in labels.values() if isinstance(each, list))  # else nnU-Net counts them wrong
    again = convention_by_names(description, ["BraTS-PED-00001-000"])
    assert again.stored_by_source == dataset_convention(store).stored_by_source
    del description["tissues"]  # where it is known whether they are children the regions alone tell it
    assert convention_by_names(description, []) == again


def test_labels_that_are_in_no_region_get_one(tmp_path: Path) -> None:
    store = create_store(tmp_path / "store", task=TASKS["gli-2023"], convention=TASKS["gli-2024"].convention)
    description = describe_dataset(store)
    assert description["labels"]["resection cavity"] == 4
    assert description["regions_class_order"] == [2, 1, 3, 4]


def test_a_folder_that_nnunet_would_not_find_and_one_with_something_in_it_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"such as .*Dataset101_BraTS, got .*mine; give it such a name"):
        check_dataset_folder(tmp_path / "mine")
    folder = tmp_path / "Dataset007_Mine"
    check_dataset_folder(folder)
    (folder / "imagesTr").mkdir(parents=True)
    check_dataset_folder(folder)  # of an export that was stopped
    (folder / "dataset.json").touch()
    with pytest.raises(InputError, match=r"found dataset\.json"):
        check_dataset_folder(folder)
    (tmp_path / "Dataset008_File").touch()
    with pytest.raises(InputError, match="found a file"):
        check_dataset_folder(tmp_path / "Dataset008_File")
