"""The synthetic cohorts are made of real NIfTI files with the names and values of their task, and cases differ."""

import csv
import hashlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from storage.labels.tasks import TASKS, person_of, tasks_named
from storage.scans.phantom import write_phantom_cohort

# What lies in a folder of each: the ids of the first five cases, without their common beginning, and the files' ends.
MODERN = ["-seg", "-t1c", "-t1n", "-t2f", "-t2w"]
PUBLISHED: dict[str, tuple[str, list[str], list[str]]] = {
    "gli-2023": ("BraTS-GLI-0000", ["1-000", "2-000", "3-000", "4-000", "5-000"], MODERN),
    "gli-2024": ("BraTS-GLI-0000", ["1-100", "1-101", "2-100", "3-100", "3-101"], MODERN),
    "met-2024": ("BraTS-MET-0000", ["1-000", "2-000", "3-000", "4-000", "5-000"], MODERN),
    "ped-2024": ("BraTS-PED-0000", ["1-000", "2-000", "3-000", "4-000", "5-000"], MODERN),
    "men-rt": ("BraTS-MEN-RT-000", ["1-1", "1-2", "2-1", "3-1", "3-2"], ["_gtv", "_t1c"]),
}


def voxels(path: Path) -> Any:
    return np.asanyarray(nibabel.load(path).dataobj)


def test_layout_is_that_of_brats_2020(phantom_source: Path) -> None:
    root = phantom_source
    assert root.name == "MICCAI_BraTS2020_TrainingData"
    with (root / "name_mapping.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["BraTS_2020_subject_ID"] for row in rows] == [f"BraTS20_Training_{n:03d}" for n in range(1, 7)]
    assert {row["Grade"] for row in rows} <= {"HGG", "LGG"}
    for modality in ("flair", "t1", "t1ce", "t2"):
        scan = nibabel.load(root / "BraTS20_Training_001" / f"BraTS20_Training_001_{modality}.nii.gz")
        assert scan.get_data_dtype() == np.int16
        assert nibabel.aff2axcodes(scan.affine) == ("L", "P", "S")
    label = voxels(root / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii.gz")
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 1, 2, 4}


def test_its_voxels_are_those_of_the_versions_before(phantom_source: Path) -> None:
    """Runs on the synthetic cohort are compared, and their stores are found again by what lies in them."""
    case = phantom_source / "BraTS20_Training_001"
    roles = ("flair", "t1", "t1ce", "t2", "seg")
    together = hashlib.sha256(b"".join(voxels(case / f"{case.name}_{role}.nii.gz").tobytes("C") for role in roles))
    assert together.hexdigest() == "d9f24e9e6bf1f8db64964158b0cf94127eb9ada00b13e1b7df0eb109ed0958df"


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_task_has_names_and_values_of_its_own(name: str, tmp_path: Path) -> None:
    task, (begin, ids, ends) = TASKS[name], PUBLISHED[name]
    root = write_phantom_cohort(tmp_path, task=name, cases=5, seed=1, spacing_mm=5.0)
    cases = sorted(root.iterdir())
    assert [case.name for case in cases] == [begin + each for each in ids]
    grids, values = set(), []
    for case in cases:
        assert task in tasks_named(case.name)
        assert sorted(file.name for file in case.iterdir()) == [f"{case.name}{end}.nii.gz" for end in ends]
        label = voxels(case / f"{case.name}{ends[0]}.nii.gz")
        scans = [nibabel.load(case / f"{case.name}{end}.nii.gz") for end in ends[1:]]
        assert all(scan.shape == label.shape and scan.get_data_dtype() == np.int16 for scan in scans)
        grids.add((label.shape, tuple(np.round(nibabel.affines.voxel_sizes(scans[0].affine), 3))))
        values.append(set(np.unique(label)))
        outside = np.mean([np.mean(scan.dataobj[:2]) for scan in scans])
        assert (outside == 0) == task.skull_stripped
    assert set.union(*values) == set(task.convention.stored_by_source)
    if task.skull_stripped:
        assert len(grids) == 1
    else:  # none is resampled
        assert len(grids) == 5 and all(max(sides) > 1.1 * min(sides) for _, sides in grids)
    if name in ("gli-2024", "met-2024", "ped-2024"):  # some have no cavity, no cyst or nothing that enhances
        assert any(own < set.union(*values) for own in values)
    assert len({person_of(case.name) for case in cases}) == len({each.rpartition("-")[0] for each in ids})


def test_same_seed_same_voxels_other_case_other_voxels(tmp_path: Path) -> None:
    def read(folder: str, seed: int, number: int) -> np.ndarray:
        root = write_phantom_cohort(tmp_path / folder, cases=number, seed=seed, spacing_mm=5.0)
        case_id = f"BraTS20_Training_{number:03d}"
        return np.asanyarray(nibabel.load(root / case_id / f"{case_id}_t1ce.nii.gz").dataobj)

    first = read("a", 3, 1)
    np.testing.assert_array_equal(first, read("b", 3, 1))
    assert not np.array_equal(first, read("b", 3, 2))
    assert not np.array_equal(first, read("c", 4, 1))
