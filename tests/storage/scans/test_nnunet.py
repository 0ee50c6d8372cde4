"""Folders with a dataset.json: nnU-Net's raw format in both versions, and the decathlon's images without theirs."""

import json
from pathlib import Path
from typing import Any

import pytest

from storage import find_cases
from storage.scans.case import Naming

MODALITIES = ("flair", "t1", "t1ce", "t2")
CHANNELS = {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}
EDEMA_FIRST = {0: 0, 1: 2, 2: 1, 3: 3}
V1 = {"modality": CHANNELS, "labels": {"0": "background", "1": "edema", "2": "non-enhancing", "3": "enhancing"}}
V2 = {
    "channel_names": CHANNELS,
    "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
    "regions_class_order": [1, 2, 3],
    "file_ending": ".nii.gz",
}


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def raw(
    root: Path, description: dict[str, Any] | None, *, channels: int = 4, ids: tuple[str, ...] = ("B_000", "B_001")
) -> Path:
    """Two cases for training and one for testing in nnU-Net's raw format."""
    for case_id in ids:
        touch(root / "imagesTr", *(f"{case_id}_{channel:04d}.nii.gz" for channel in range(channels)))
        touch(root / "labelsTr", f"{case_id}.nii.gz")
    touch(root / "imagesTs", *(f"B_900_{channel:04d}.nii.gz" for channel in range(channels)))
    if description is not None:
        (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.mark.parametrize("description", [V1, V2], ids=["v1", "v2"])
def test_channels_and_values_mean_what_the_dataset_json_calls_them(tmp_path: Path, description: dict[str, Any]) -> None:
    folder = raw(tmp_path / "Dataset043_BraTS", description)
    found = find_cases(tmp_path)
    assert [case.case_id for case in found.cases] == ["B_000", "B_001", "B_900"]
    assert found.refused == () == found.notices
    for case in found.cases:
        part, number = (
            ("imagesTs" if case.case_id == "B_900" else "imagesTr"),
            dict(zip(("t1", "t1ce", "t2", "flair"), range(4), strict=True)),
        )
        assert case.files == {role: folder / part / f"{case.case_id}_{number[role]:04d}.nii.gz" for role in MODALITIES}
        assert case.convention is not None and case.convention.stored_by_source == EDEMA_FIRST
        assert case.convention.name == "custom-1:2,2:1,3:3"
        assert case.naming is Naming.NNUNET and not case.volumes
    assert [case.label for case in found.cases] == [
        folder / "labelsTr" / f"{each}.nii.gz" for each in ("B_000", "B_001")
    ] + [None]


def test_images_that_are_named_alone_are_read_by_the_dataset_json_beside_them(tmp_path: Path) -> None:
    folder = raw(tmp_path / "Dataset043_BraTS", V2)
    (case,) = find_cases(folder / "imagesTs").cases
    assert case.case_id == "B_900" and case.convention is not None
    assert [case.label for case in find_cases(folder / "imagesTr").cases] == [
        folder / "labelsTr" / f"{case_id}.nii.gz" for case_id in ("B_000", "B_001")
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("t2f", "t1n", "t1c", "t2w"),
        ("T2-FLAIR", "T1-weighted", "contrast-enhanced T1", "T2-weighted"),
        ("MRI_FLAIR", "mr T1", "T1 post contrast", "T2w"),
        ("FLAIR", "pre-contrast T1", "T1-Gd", "T2"),
    ],
)
def test_channels_in_other_words(tmp_path: Path, names: tuple[str, ...]) -> None:
    raw(tmp_path, {**V1, "modality": {str(index): name for index, name in enumerate(names)}})
    case = find_cases(tmp_path).cases[0]
    assert [path.name for path in case.files.values()] == [f"B_000_{channel:04d}.nii.gz" for channel in range(4)]


def test_a_file_that_somebody_left_among_the_images_is_refused_and_the_dataset_is_read(tmp_path: Path) -> None:
    touch(raw(tmp_path, V2) / "imagesTr", "brain.nii.gz")
    found = find_cases(tmp_path)
    assert len(found.cases) == 3
    (refusal,) = found.refused
    assert refusal.file.endswith("imagesTr/brain.nii.gz") and "no channel" in refusal.finding


def test_a_dataset_has_the_scans_that_it_lists(tmp_path: Path) -> None:
    raw(tmp_path, {**V1, "modality": {"0": "T1-Gd", "1": "T2-FLAIR"}}, channels=2)
    assert [tuple(case.files) for case in find_cases(tmp_path).cases] == [("flair", "t1ce")] * 3
    (refusal,) = find_cases(tmp_path, modalities=MODALITIES).refused
    assert "those listed are 0 T1-Gd, 1 T2-FLAIR" in refusal.finding


@pytest.mark.parametrize(
    "channels", [{"0": "MRI", "1": "MRI", "2": "MRI", "3": "MRI"}, {"0": "T1", "1": "T1"}, {}, ["T1"]]
)
def test_channels_without_a_name_are_refused_and_named_on_the_command_line(tmp_path: Path, channels: Any) -> None:
    raw(tmp_path, {**V1, "modality": channels})
    found = find_cases(tmp_path, modalities=MODALITIES)
    (refusal,) = found.refused
    assert found.cases == () and "--names SCAN 0000" in refusal.remedy
    told = find_cases(tmp_path, names={"t1": "0000", "t1ce": "0001", "t2": "0002", "flair": "0003"})
    assert [(case.case_id, case.naming) for case in told.cases] == [
        (each, Naming.TOLD) for each in ("B_000", "B_001", "B_900")
    ]


@pytest.mark.parametrize("ids", [("B_000", "B_001"), ("P_0001", "P_0003")])
def test_images_without_a_dataset_json_are_refused_and_named_on_the_command_line(
    tmp_path: Path, ids: tuple[str, ...]
) -> None:
    folder = raw(tmp_path, None, ids=ids)
    found = find_cases(tmp_path)
    by_folder = {refusal.file: refusal for refusal in found.refused}
    assert found.cases == () and set(by_folder) == {str(folder / name) for name in ("imagesTr", "imagesTs", "labelsTr")}
    for name in ("imagesTr", "imagesTs"):
        remedy = by_folder[str(folder / name)].remedy
        assert "dataset.json" in remedy and "--names SCAN 0000 SCAN 0001 SCAN 0002 SCAN 0003" in remedy
    told = find_cases(tmp_path, names={"t1": "0000", "t1ce": "0001", "t2": "0002", "flair": "0003"})
    assert {case.case_id: case.label and case.label.name for case in told.cases} == {
        "B_900": None,
        **{case_id: f"{case_id}.nii.gz" for case_id in ids},
    }
    assert told.refused == ()


def test_a_lost_channel_and_a_lost_label_are_named(tmp_path: Path) -> None:
    folder = raw(tmp_path, V1)
    (folder / "imagesTr" / "B_000_0002.nii.gz").unlink()
    (folder / "labelsTr" / "B_001.nii.gz").rename(folder / "labelsTr" / "B_002.nii.gz")
    found = find_cases(tmp_path)
    assert [case.case_id for case in found.cases] == ["B_900"]
    assert [refusal.finding for refusal in found.refused] == [
        "missing B_000_0002 (t2)",
        "imagesTr/B_001_0000.nii.gz has no labelsTr/B_001.nii.gz",
        "labelsTr/B_002.nii.gz has no images B_002_0000, …",
    ]


def test_labels_without_a_meaning_are_for_the_user_to_say(tmp_path: Path) -> None:
    raw(tmp_path, {**V1, "labels": {"background": 0, "label 1": 1}})
    found = find_cases(tmp_path)
    assert {case.convention for case in found.cases} == {None}
    (notice,) = found.notices
    assert "'label 1', which is no tissue" in notice and "--task or --label-map" in notice


def test_a_dataset_json_that_is_none_costs_its_own_folder_alone(tmp_path: Path) -> None:
    raw(tmp_path / "dataset", V1)
    (tmp_path / "dataset" / "dataset.json").write_text("{")
    raw(tmp_path / "sound", V1)
    found = find_cases(tmp_path)
    assert {case.files["t1"].parent.parent.name for case in found.cases} == {"sound"}
    (refusal,) = found.refused
    assert refusal.case_id == "dataset" and refusal.file.endswith("dataset/dataset.json")
    assert "cannot be read" in refusal.finding and "--names" in refusal.remedy


@pytest.mark.parametrize("below", ["", "imagesTs"])
@pytest.mark.parametrize("described", [True, False])
def test_the_decathlons_test_images_alone(tmp_path: Path, below: str, *, described: bool) -> None:
    task = tmp_path / "Task01_BrainTumour"
    touch(task / "imagesTs", "BRATS_485.nii.gz", "BRATS_486.nii.gz")
    if described:
        order = {"0": "T2w", "1": "T1w", "2": "t1gd", "3": "FLAIR"}
        labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
        (task / "dataset.json").write_text(json.dumps({"modality": order, "labels": labels}))
    found = find_cases(task / below)
    assert [case.case_id for case in found.cases] == ["BRATS_485", "BRATS_486"]
    assert {case.naming for case in found.cases} == {Naming.MSD}
    assert found.cases[0].naming is Naming.MSD
    flair, t2 = (3, 0) if described else (0, 3)
    assert found.cases[0].volumes == {"flair": flair, "t1": 1, "t1ce": 2, "t2": t2}
    assert bool(found.cases[0].notes) is not described


@pytest.mark.parametrize("part", ["imagesTr", "imagesTs"])
def test_a_decathlons_number_of_four_digits_is_no_channel(tmp_path: Path, part: str) -> None:
    names = ("BRATS_0484.nii.gz", "BRATS_0001.nii.gz")
    touch(tmp_path / part, *names)
    touch(tmp_path / "labelsTr", *(names if part == "imagesTr" else ()))
    (tmp_path / "dataset.json").write_text(
        json.dumps({**V1, "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}})
    )
    found = find_cases(tmp_path)
    assert [case.case_id for case in found.cases] == ["BRATS_0001", "BRATS_0484"] and found.refused == ()
    assert all(case.naming is Naming.MSD for case in found.cases)


def test_other_images_without_a_dataset_json_are_read_once_it_is_there(tmp_path: Path) -> None:
    touch(tmp_path / "imagesTs", "case1.nii.gz")
    (refusal,) = find_cases(tmp_path).refused
    assert "dataset.json beside imagesTs" in refusal.remedy
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": modality, "labels": labels}))
    assert [case.case_id for case in find_cases(tmp_path).cases] == ["case1"]
