"""What a conversion makes of cohorts with other scans than four, and of a store in which a first try left nothing."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ray_jobs.on_ray.conversion import convert_cohort, verify_cohort
from storage import TASKS, CaseInfo, CohortStore, InputError, open_store
from storage.labels.conventions import custom_convention
from storage.scans.listing import ScanFile
from storage.store import cohort_conversion
from storage.store.in_use import only_writer
from storage.store.index import ROOT_KEY
from storage.store.objects import Objects


def write(path: Path, seed: int, *, label: bool = False) -> None:
    """A scan or a segmentation of 6 voxels a side, with the values 1 to 3."""
    voxels = np.zeros((6, 6, 6), np.int16)
    voxels[1:5, 1:5, 1:5] = np.random.default_rng(seed).integers(1, 4 if label else 900, (4, 4, 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.uint8) if label else voxels, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


def convert(source: Path, store: Path, **told: Any) -> CohortStore:
    convert_cohort(source, str(store), **told)
    return open_store(str(store))


def test_a_dataset_of_nnunets_with_two_channels_makes_a_store_of_two_scans(tmp_path: Path) -> None:
    source = tmp_path / "Dataset007_Two"
    for channel in range(2):
        write(source / "imagesTr" / f"B_000_{channel:04d}.nii.gz", channel)
    write(source / "labelsTr" / "B_000.nii.gz", 9, label=True)
    about = {"channel_names": {"0": "FLAIR", "1": "T1c"}, "labels": {"background": 0, "ED": 1, "NCR": 2, "ET": 3}}
    (source / "dataset.json").write_text(json.dumps(about))
    store = convert(source, tmp_path / "s.zarr")
    assert (store.settings.modalities, store.case_ids) == (("flair", "t1ce"), ("B_000",))


def test_a_task_that_is_told_says_the_scans_of_cases_by_any_name(tmp_path: Path) -> None:
    write(tmp_path / "in" / "pat1" / "pat1_t1c.nii.gz", 1)
    write(tmp_path / "in" / "pat1" / "pat1_gtv.nii.gz", 2, label=True)
    store = convert(
        tmp_path / "in",
        tmp_path / "s.zarr",
        task=TASKS["men-rt"],
        label_map=custom_convention(dict.fromkeys((1, 2, 3), 7)),
    )
    assert (store.task.name, store.settings.modalities) == ("men-rt", ("t1ce",))


def test_a_store_without_a_case_binds_nobody(tmp_path: Path) -> None:
    name = "BraTS-GLI-00001-000"
    for seed, ending in enumerate(("t1n", "t1c", "t2w", "t2f", "seg")):
        write(tmp_path / "in" / name / f"{name}-{ending}.nii.gz", seed, label=ending == "seg")
    wrong = convert(tmp_path / "in", tmp_path / "s.zarr", label_map=custom_convention({1: 7}), modalities=("t1",))
    assert (wrong.task.region_names, wrong.case_ids) == (("GTV",), ())  # its label has a 2, too
    with only_writer(str(tmp_path / "s.zarr"), "wait"), pytest.raises(InputError, match="wait"):
        convert(tmp_path / "in", tmp_path / "s.zarr")  # whoever made it may be about to write its first case
    right = convert(tmp_path / "in", tmp_path / "s.zarr")
    assert (right.task.name, len(right.settings.modalities), right.case_ids) == ("gli-2023", 4, (name,))
    assert right.read_case(name).image_MDHW.shape[0] == 4
    assert set(right.info(name).region_voxels) == {"WT", "TC", "ET"}


def write_years(source: Path) -> tuple[str, str]:
    """A case of 2021 and one of 2023, each with its own names and values."""
    old, new = "BraTS2021_00001", "BraTS-GLI-00001-000"
    endings = {old: ("_flair", "_t1", "_t1ce", "_t2", "_seg"), new: ("-t2f", "-t1n", "-t1c", "-t2w", "-seg")}
    for number, (name, ends) in enumerate(endings.items()):
        for seed, ending in enumerate(ends):
            write(source / name / f"{name}{ending}.nii.gz", 10 * number + seed, label=ending.endswith("seg"))
    path = source / old / f"{old}_seg.nii.gz"
    values = np.asanyarray(nib.load(path).dataobj)
    nib.save(nib.Nifti1Image(np.where(values == 3, 4, values).astype(np.uint8), np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return old, new


def test_a_case_that_is_stored_anew_for_its_subject_keeps_what_its_values_mean(tmp_path: Path) -> None:
    old, new = write_years(tmp_path / "in")
    store = convert(tmp_path / "in", tmp_path / "s.zarr")
    before = {name: store.read_case(name).label_DHW for name in (old, new)}
    store = convert(tmp_path / "in", tmp_path / "s.zarr", subjects={old: "P", new: "P"})
    assert {info.case_id: (info.subject, info.task) for info in store.infos()} == {
        old: ("P", "gli-2021"),
        new: ("P", "gli-2023"),
    }
    for name, label_DHW in before.items():
        np.testing.assert_array_equal(store.read_case(name).label_DHW, label_DHW)


def test_where_nothing_is_to_be_done_records_and_files_are_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_years(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "s.zarr")
    for path in (tmp_path / "in").rglob("*.nii.gz"):
        path.touch()  # of another time, so that only its bytes say that it is the same
    looked: list[str] = []
    records, digest = CohortStore.committed_cases, cohort_conversion.file_digest

    def noted_records(store: CohortStore) -> dict[str, CaseInfo]:
        looked.append("records")
        return records(store)

    def noted_digest(file: ScanFile) -> str | None:
        looked.append(str(file))
        return digest(file)

    monkeypatch.setattr(CohortStore, "committed_cases", noted_records)
    monkeypatch.setattr(cohort_conversion, "file_digest", noted_digest)
    convert(tmp_path / "in", tmp_path / "s.zarr")
    assert looked.count("records") == 1
    assert len(looked) == 1 + 10 and len(set(looked)) == len(looked)


def test_the_root_is_read_and_written_as_often_for_many_cases_as_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows with the cases: read or written for each of them it would cost their square."""
    moved: list[str] = []
    get, put = Objects.get, Objects.put

    def noted_get(objects: Objects, key: str) -> bytes | None:
        moved.append(f"read {key}")
        return get(objects, key)

    def noted_put(objects: Objects, key: str, data: bytes) -> None:
        moved.append(f"written {key}")
        put(objects, key, data)

    monkeypatch.setattr(Objects, "get", noted_get)
    monkeypatch.setattr(Objects, "put", noted_put)

    def count(cases: int) -> dict[str, int]:
        moved.clear()
        for case in range(cases):
            name = f"BraTS-GLI-{case:05d}-000"
            for seed, ending in enumerate(("t1n", "t1c", "t2w", "t2f", "seg")):
                path = tmp_path / f"in{cases}" / name / f"{name}-{ending}.nii.gz"
                write(path, 5 * case + seed, label=ending == "seg")
        store = convert(tmp_path / f"in{cases}", tmp_path / f"{cases}.zarr")
        assert verify_cohort(store) == ()
        return {way: moved.count(f"{way} {ROOT_KEY}") for way in ("read", "written")}

    few = count(2)
    assert count(5) == few
    assert few["written"] == 2  # the empty one and the one with all cases
