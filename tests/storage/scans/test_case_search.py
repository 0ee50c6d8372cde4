"""Every naming of every year is found; what is missing is said by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from storage import InputError, find_cases
from storage.scans.case import Naming

MODALITIES = ("flair", "t1", "t1ce", "t2")
NAMES_2023 = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "label": "-seg"}


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def test_brats_2018_grades_come_from_the_folders(tmp_path: Path, case_writer: type[Any]) -> None:
    case_writer().write(tmp_path / "HGG", "Brats18_CBICA_AAB_1")
    case_writer().write(tmp_path / "LGG", "Brats18_TCIA09_141_1")
    found = find_cases(tmp_path)
    assert [(case.case_id, case.grade, case.subject) for case in found.cases] == [
        ("Brats18_CBICA_AAB_1", "HGG", "Brats18_CBICA_AAB"),
        ("Brats18_TCIA09_141_1", "LGG", "Brats18_TCIA09_141"),
    ]
    assert found.refused == ()


def test_brats_2020_as_kaggle_ships_it(tmp_path: Path) -> None:
    root = tmp_path / "BraTS2020_TrainingData" / "MICCAI_BraTS2020_TrainingData"
    for number in (1, 355):
        case_id = f"BraTS20_Training_{number:03d}"
        touch(root / case_id, *(f"{case_id}_{name}.nii" for name in MODALITIES))
    touch(root / "BraTS20_Training_001", "BraTS20_Training_001_seg.nii")
    touch(root / "BraTS20_Training_355", "W39_1998.09.19_Segm.nii")
    (root / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,BraTS_2019_subject_ID,"
        "BraTS_2020_subject_ID\n"
        "HGG,Brats17_CBICA_AAB_1,Brats18_CBICA_AAB_1,NA,BraTS19_CBICA_AAB_1,BraTS20_Training_001\n"
        "LGG,NA,NA,NA,NA,BraTS20_Training_355\n"
    )
    found = find_cases(tmp_path)
    assert [(case.case_id, case.grade) for case in found.cases] == [
        ("BraTS20_Training_001", "HGG"),
        ("BraTS20_Training_355", "LGG"),
    ]
    assert found.cases[1].label == root / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii"
    assert found.refused == ()


def test_brats_2021_and_2023_in_any_letter_case(tmp_path: Path) -> None:
    touch(tmp_path / "BraTS2021_00005", *(f"BraTS2021_00005_{name}.nii.gz" for name in (*MODALITIES, "seg")))
    ids = ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101")
    touch(tmp_path / ids[0], *(f"{ids[0]}-{name}.nii.gz" for name in ("t1n", "T1C", "t2W", "t2f", "Seg")))
    touch(tmp_path / ids[1], *(f"{ids[1]}-{name}.NII.GZ" for name in ("t1n", "t1c", "t2w", "t2f")))
    found = find_cases(tmp_path)
    assert [(case.case_id, case.subject, case.naming) for case in found.cases] == [
        (ids[0], "BraTS-GLI-00005", Naming.HYPHEN),
        (ids[1], "BraTS-GLI-00005", Naming.HYPHEN),
        ("BraTS2021_00005", "BraTS2021_00005", Naming.UNDERSCORE),
    ]
    assert found.cases[0].files["t2"].name == f"{ids[0]}-t2W.nii.gz"
    assert found.cases[1].label is None


def test_unprefixed_files_take_the_folders_name(tmp_path: Path) -> None:
    touch(tmp_path / "patient7", "t1c.nii.gz", "t1n.nii.gz", "t2f.nii.gz", "t2w.nii.gz", "segmentation.nii.gz")
    (case,) = find_cases(tmp_path).cases
    assert case.case_id == "patient7"
    assert case.files["t1ce"].name == "t1c.nii.gz"
    assert case.label is not None


def msd_folder(root: Path, labels: dict[str, str] | None = None) -> Path:
    folder = root / "Task01_BrainTumour"
    touch(folder / "imagesTr", "BRATS_001.nii.gz", "._BRATS_001.nii.gz", "BRATS_002.nii.gz")
    touch(folder / "labelsTr", "BRATS_001.nii.gz")
    touch(folder / "imagesTs", "BRATS_485.nii.gz")
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": labels or {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_the_decathlon_by_its_dataset_json(tmp_path: Path) -> None:
    folder = msd_folder(tmp_path)
    found = find_cases(tmp_path)
    assert [case.case_id for case in found.cases] == ["BRATS_001", "BRATS_485"]
    assert {case.naming for case in found.cases} == {Naming.MSD}
    assert found.cases[0].volumes == {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}
    assert found.cases[0].label == folder / "labelsTr" / "BRATS_001.nii.gz"
    assert found.cases[1].label is None
    assert [refusal.case_id for refusal in found.refused] == ["BRATS_002"]


def test_another_decathlon_task_is_not_taken_for_this_one(tmp_path: Path) -> None:
    msd_folder(tmp_path, labels={"0": "background", "1": "liver", "2": "cancer"})
    found = find_cases(tmp_path)
    (refusal,) = found.refused
    assert not found.cases and "wanted the brain task's labels" in refusal.finding


def test_other_names_when_told(tmp_path: Path) -> None:
    touch(tmp_path / "pat3", "pat3_Flair_norm.nii.gz", "pat3_T1c_norm.nii.gz", "pat3_truth.nii.gz", "brainmask.nii.gz")
    names = {"flair": "Flair_norm", "t1ce": "t1c_NORM", "label": "truth"}
    (case,) = find_cases(tmp_path, modalities=("flair", "t1ce"), names=names).cases
    assert (case.case_id, case.naming) == ("pat3", Naming.TOLD)
    assert case.notes == ("ignored brainmask.nii.gz",)


def test_a_scan_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "A", *(f"A_{name}.nii.gz" for name in MODALITIES))
    with pytest.raises(InputError, match="--modalities: wanted each scan once, got t1, t2, t1"):
        find_cases(tmp_path, modalities=("t1", "t2", "t1"))


def test_missing_modalities_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    touch(tmp_path / "A", *(f"A_{name}.nii.gz" for name in (*MODALITIES, "seg")))
    touch(tmp_path / "B", "B_flair.nii.gz", "B_t1.nii.gz", "B_seg.nii.gz")
    found = find_cases(tmp_path)
    assert [case.case_id for case in found.cases] == ["A"]
    (refusal,) = found.refused
    assert refusal.case_id == "B"
    assert "missing modalities t1ce, t2" in refusal.finding
    assert "--modalities" in refusal.remedy


def test_one_case_id_in_two_places_takes_neither(tmp_path: Path) -> None:
    for part in ("a", "b"):
        touch(tmp_path / part / "A", *(f"A_{name}.nii.gz" for name in MODALITIES))
    found = find_cases(tmp_path)
    assert found.cases == ()
    assert "the same case id in 2 places" in found.refused[0].finding


def test_two_files_for_one_modality_are_refused(tmp_path: Path) -> None:
    touch(tmp_path / "A", *(f"A_{name}.nii.gz" for name in MODALITIES), "A_flair.nii")
    (refusal,) = find_cases(tmp_path).refused
    assert "A_flair.nii, A_flair.nii.gz" in refusal.finding


def test_a_lone_segmentation_is_not_paired_with_a_case_of_another_name(tmp_path: Path) -> None:
    touch(tmp_path / "scans", *(f"A_{name}.nii.gz" for name in MODALITIES), "B_seg.nii.gz")
    found = find_cases(tmp_path)
    assert found.cases[0].label is None
    assert [refusal.case_id for refusal in found.refused] == ["B"]


def test_links_that_lead_back_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "A", *(f"A_{name}.nii.gz" for name in MODALITIES))
    (tmp_path / "A" / "loop").symlink_to(tmp_path)
    assert [case.case_id for case in find_cases(tmp_path).cases] == ["A"]


def test_subjects_may_be_told(tmp_path: Path) -> None:
    touch(tmp_path / "A", *(f"A_{name}.nii.gz" for name in MODALITIES))
    assert find_cases(tmp_path, subjects={"A": "person 1"}).cases[0].subject == "person 1"


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("x")])
def test_nothing_to_search_is_an_input_error(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "source")
    with pytest.raises(InputError, match="wanted"):
        find_cases(tmp_path / "source")


def test_the_real_cases_are_all_found(real_cases: Path) -> None:
    found = find_cases(real_cases)
    assert len(found.cases) == 16
    assert all(case.label is not None for case in found.cases)
    assert found.refused == ()


@pytest.mark.parametrize(
    ("folder", "found", "words"),
    [
        ("BraTS-GLI-00000-000", 1, ""),
        ("BraTS-MET-00110-000", 1, ""),
        ("unprefixed_float64", 1, ""),
        ("BraTS2021_00006_labels_variant", 0, "missing modalities flair, t1, t1ce, t2"),
        ("brats_2013_pat0003_1", 0, "Flair_subtrMeanDivStd.nii.gz"),
        ("transposed_mask_week056", 0, "missing modalities"),
        ("seg_only_100001", 0, "segmentations only"),
    ],
)
def test_the_oddities(oddities: Path, folder: str, found: int, words: str) -> None:
    search = find_cases(oddities / folder)
    assert len(search.cases) == found
    assert len(search.refused) == 1 - found
    assert all(words in refusal.finding and refusal.remedy for refusal in search.refused)


def test_a_case_that_lacks_scans_is_one_where_some_are_enough(tmp_path: Path) -> None:
    touch(tmp_path / "A", "A_t1.nii.gz", "A_t2.nii.gz", "A_flair.nii.gz")
    touch(tmp_path / "B", "B_t1.nii.gz", "B_seg.nii.gz")
    assert find_cases(tmp_path).cases == ()
    cases = {case.case_id: tuple(case.files) for case in find_cases(tmp_path, some=True).cases}
    assert cases == {"A": ("flair", "t1", "t2"), "B": ("t1",)}


def test_scans_that_may_lie_under_another_id_are_not_done_without(tmp_path: Path) -> None:
    touch(tmp_path, "A_t1.nii.gz", "A_t2.nii.gz", "B_t1ce.nii.gz", "B_flair.nii.gz")
    found = find_cases(tmp_path, some=True)
    assert found.cases == () and all("files of other ids have them" in refusal.finding for refusal in found.refused)
