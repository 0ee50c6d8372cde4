"""The synthetic cohort is made of real NIfTI files with BraTS 2020's names, and differs from case to case."""

import csv
from pathlib import Path

import nibabel
import numpy as np

from storage.scans.phantom import write_phantom_cohort


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
    label = np.asanyarray(nibabel.load(root / "BraTS20_Training_001" / "BraTS20_Training_001_seg.nii.gz").dataobj)
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 1, 2, 4}


def test_same_seed_same_voxels_other_case_other_voxels(tmp_path: Path) -> None:
    def read(folder: str, seed: int, number: int) -> np.ndarray:
        root = write_phantom_cohort(tmp_path / folder, cases=number, seed=seed)
        case_id = f"BraTS20_Training_{number:03d}"
        return np.asanyarray(nibabel.load(root / case_id / f"{case_id}_t1ce.nii.gz").dataobj)

    first = read("a", 3, 1)
    np.testing.assert_array_equal(first, read("b", 3, 1))
    assert not np.array_equal(first, read("b", 3, 2))
    assert not np.array_equal(first, read("c", 4, 1))
