"""The convert command as a user meets it: what it prints, writes and returns, and what a kill leaves."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from ray_jobs.convert import main
from ray_jobs.on_ray.conversion import verify_cohort
from ray_jobs.on_ray.conversion_job import REFUSED
from ray_jobs.settings.presets import preset
from ray_jobs.training.run_input import find_or_make_store
from storage import CohortStore, InputError, find_cases, open_store
from storage.store.verify import verify_case

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(phantom_source: Path, tmp_path: Path) -> Path:
    """Three phantom cases of the test's own."""
    for number in (1, 2, 3):
        name = f"BraTS20_Training_{number:03d}"
        shutil.copytree(phantom_source / name, tmp_path / "source" / name)
    return tmp_path / "source"


def one_file(source: Path, number: int, role: str) -> Path:
    (path,) = source.glob(f"*_{number:03d}/*_{role}.nii*")
    return path


def write_threes(label: Path) -> None:
    """Write the label's fours as threes."""
    image = nib.load(label)
    values = np.asanyarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.where(values == 4, 3, values).astype(np.uint8), image.affine), label)


def report_of(store: Path) -> dict[str, object]:
    report: dict[str, object] = json.loads((store / "report.json").read_text())
    return report


def test_convert_then_nothing_to_do_then_a_change(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", str(source), "--store", str(tmp_path / "store")]
    assert main(arguments) == 0
    assert len(report_of(tmp_path / "store")["converted"]) == 3  # type: ignore[arg-type]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "cases").rglob("*")}
    capsys.readouterr()
    assert main(arguments) == 0
    assert "nothing to do: all 3 cases" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "cases").rglob("*")} == before
    path = one_file(source, 2, "t1")
    image = nib.load(path)
    array = np.asanyarray(image.dataobj).copy()
    array[60, 60, 40] += 1
    nib.save(nib.Nifti1Image(array, image.affine), path)
    assert main([*arguments, "--verify"]) == 0
    report = report_of(tmp_path / "store")
    assert report["changed"] == report["converted"] == ["BraTS20_Training_002"]
    assert "verified 3 cases: 0 problems" in capsys.readouterr().out


def test_bad_cases_are_refused_and_the_rest_converted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_file(source, 1, "t1ce").unlink()
    truncated = one_file(source, 2, "flair")
    truncated.write_bytes(truncated.read_bytes()[:-100])
    assert main(["--source", str(source), "--store", str(tmp_path / "store")]) == REFUSED
    report = report_of(tmp_path / "store")
    assert report["converted"] == ["BraTS20_Training_003"]
    first, second = report["refused"]  # type: ignore[misc]
    assert "missing modalities t1ce" in first["finding"]
    assert second["file"] == str(truncated)
    assert "damaged" in second["finding"] or "truncated" in second["finding"]
    assert "refused BraTS20_Training_002" in capsys.readouterr().out
    assert open_store(tmp_path / "store").case_ids == ("BraTS20_Training_003",)


def test_what_was_mended_is_said_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One small case: a background of -1024, a label with an identity affine, a table of grades in another encoding."""
    name = "BraTS20_Training_001"
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = -239
    scan = np.full((12, 10, 8), -1024, np.int16)
    scan[2:9, 2:8, 2:6] = np.random.default_rng(0).integers(1, 900, (7, 6, 4))
    (tmp_path / "source" / name).mkdir(parents=True)
    for role in ("flair", "t1", "t1ce", "t2"):
        nib.save(nib.Nifti1Image(scan, affine), tmp_path / "source" / name / f"{name}_{role}.nii")
    label = np.select([scan > 600, scan > 300, scan > 0], [4, 1, 2]).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / "source" / name / f"{name}_seg.nii")
    table = f"Grade,BraTS_2020_subject_ID,Comment\nLGG,{name},Zürich\n"
    (tmp_path / "source" / "name_mapping.csv").write_text(table, encoding="cp1252")
    arguments = ["--source", str(tmp_path / "source"), "--store", str(tmp_path / "store")]
    assert main(arguments) == REFUSED
    assert "--trust-grid" in capsys.readouterr().out
    assert main([*arguments, "--trust-grid"]) == 0
    notices = report_of(tmp_path / "store")["notices"]
    shown = capsys.readouterr().out
    assert isinstance(notices, list)
    assert len(notices) == 3
    for notice, words in zip(
        notices,
        (
            "read as Windows-1252",
            f"(--trust-grid): 1 case, {name} (label)",
            f"background stored as 0: 1 case, {name} (flair -1024, t1 -1024, t1ce -1024, t2 -1024)",
        ),
        strict=True,
    ):
        assert words in notice
        assert f"notice: {notice}" in shown
    (info,) = open_store(tmp_path / "store").infos()
    assert (info.grade, info.brain_voxels, info.region_voxels["ET"]) == ("LGG", 168, np.count_nonzero(label == 4))


def test_unlabelled_cases_are_no_refusal(source: Path, tmp_path: Path) -> None:
    one_file(source, 3, "seg").unlink()
    assert main(["--source", str(source), "--store", str(tmp_path / "store")]) == 0
    assert report_of(tmp_path / "store")["unlabelled"] == ["BraTS20_Training_003"]


def test_ambiguous_labels_ask_for_the_flag_and_leave_nothing(source: Path, tmp_path: Path) -> None:
    write_threes(one_file(source, 1, "seg"))
    arguments = ["--source", str(source), "--store", str(tmp_path / "store")]
    with pytest.raises(InputError, match=r"--label-map .* or which task it is with --task"):
        main(arguments)
    assert not (tmp_path / "store").exists()
    assert main([*arguments, "--label-map", "1", "1", "2", "2", "3", "3", "4", "3"]) == 0
    store = open_store(tmp_path / "store")
    assert store.settings.convention.name == "custom-1:1,2:2,3:3,4:3"
    assert all(store.info(case_id).label_lossy for case_id in store.case_ids)
    with pytest.raises(InputError, match="name another store"):
        main([*arguments, "--task", "gli-2021"])


def test_training_on_ambiguous_labels_names_the_command_that_has_the_flag(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_threes(one_file(source, 1, "seg"))
    with pytest.raises(InputError, match=r"3 in 1 case, .*--label-map.*convert.py --source \S+/source --store PATH"):
        find_or_make_store(dataclasses.replace(preset("demo"), source=str(source)), Console())


def test_verify_finds_damage(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    assert main(["--source", str(source), "--store", str(store)]) == 0
    shard = store / "cases" / "BraTS20_Training_002" / "image" / "c" / "0" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 1
    shard.write_bytes(data)
    assert main(["--store", str(store), "--verify"]) == REFUSED
    printed = capsys.readouterr().out.replace("\n", "")
    assert "case BraTS20_Training_002, array image, chunk (0," in printed
    shutil.rmtree(store / "cases" / "BraTS20_Training_002")
    assert main(["--source", str(source), "--store", str(store), "--verify"]) == 0


def write_scans(folder: Path, *files: str, label_values: tuple[int, ...]) -> None:
    """Write small scans of one case, the last of them its label, which differ from file to file."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(sum(map(ord, str(folder.name))))
    for name in files:
        voxels = random.integers(1, 900, (12, 10, 8)).astype(np.int16)
        voxels[:2] = 0
        if name == files[-1]:
            voxels[...] = 0
            for index, value in enumerate(label_values):
                voxels[3 + 2 * index : 5 + 2 * index, 3:6, 2:5] = value
        nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), folder / name)


@pytest.mark.parametrize(
    ("ids", "endings", "label_values", "task", "told"),
    [
        ("UPENN-GBM-0000{}_11", ("_FLAIR", "_T1", "_T1GD", "_T2", "_segm"), (1, 2, 4), "upenn-gbm", []),
        ("BraTS-PED-0000{}-000", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), (1, 2, 3, 4), "ped-2024", []),
        ("BraTS-MEN-RT-000{}-1", ("_t1c", "_gtv"), (1,), "men-rt", []),
        ("BraTS-MET-0000{}-000", ("-t2f", "-t1n", "-t1c", "-t2w", "-seg"), (1, 2, 3), "met-2023", ["met-2023"]),
    ],
)
def test_a_store_goes_to_nnunet_and_comes_back_the_same(
    tmp_path: Path,
    ids: str,
    endings: tuple[str, ...],
    label_values: tuple[int, ...],
    task: str,
    told: list[str],
) -> None:
    for number in (1, 2):
        case_id = ids.format(number)
        write_scans(
            tmp_path / "in" / case_id, *(f"{case_id}{each}.nii.gz" for each in endings), label_values=label_values
        )
    first, again, folder = tmp_path / "first", tmp_path / "again", tmp_path / "Dataset101_BraTS"
    flags = ["--task", *told] if told else []
    assert main(["--source", str(tmp_path / "in"), "--store", str(first), *flags]) == 0
    assert main(["--store", str(first), "--to-nnunet", str(folder)]) == 0
    assert main(["--source", str(folder), "--store", str(again), *flags]) == 0
    one, other = open_store(first), open_store(again)
    assert one.task.name == other.task.name == task and one.settings.modalities == other.settings.modalities
    assert one.case_ids == other.case_ids and len(one.case_ids) == 2
    for case_id in one.case_ids:
        assert one.info(case_id).subject == other.info(case_id).subject
        assert one.info(case_id).affine == other.info(case_id).affine
        for before, after in zip(one.read_case(case_id), other.read_case(case_id), strict=True):
            assert before is not None and after is not None
            np.testing.assert_array_equal(before, after)
    with pytest.raises(InputError, match=r"wanted a new or empty folder, found dataset\.json"):
        main(["--store", str(first), "--to-nnunet", str(folder)])


def test_other_modalities_names_and_subjects(source: Path, tmp_path: Path) -> None:
    for path in [*source.glob("*/*_flair.nii*"), *source.glob("*/*_seg.nii*")]:
        path.rename(path.with_name(path.name.replace("_flair", "_FLR").replace("_seg", "_truth")))
    (tmp_path / "subjects.csv").write_text("case_id,subject\nBraTS20_Training_001,P\nBraTS20_Training_002,P\n")
    arguments = ["--source", str(source), "--store", str(tmp_path / "store"), "--modalities", "t1ce", "flair"]
    arguments += ["--names", "flair", "FLR", "t1ce", "t1ce", "label", "truth", "--task", "gli-2021"]
    assert main([*arguments, "--subjects", str(tmp_path / "subjects.csv")]) == 0
    store = open_store(tmp_path / "store")
    assert store.info("BraTS20_Training_001").modalities == ("t1ce", "flair")
    assert [info.subject for info in store.infos()] == ["P", "P", "BraTS20_Training_003"]
    (tmp_path / "subjects.csv").write_text("case_id,subject\nBraTS20_Training_001,P\nBraTS20_Training_002,Q\n")
    assert main([*arguments, "--subjects", str(tmp_path / "subjects.csv")]) == 0
    assert report_of(tmp_path / "store")["changed"] == ["BraTS20_Training_002"]
    assert [info.subject for info in open_store(store.uri).infos()] == ["P", "Q", "BraTS20_Training_003"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("case_id,subject\nBraTS20_Training_001,P\nBraTS20_Trainin_002,P\n", "no case is BraTS20_Trainin_002:"),
        ("id,subject\n", "columns case_id and subject, .* has id, subject;"),
        ("id,patient\nBraTS20_Training_001,P\n", "has id, patient;"),
        ("case_id,subject\nBraTS20_Training_001\n", "has a line without one: BraTS20_Training_001"),
        ("", "has nothing"),
    ],
)
def test_a_table_of_subjects_that_does_not_fit_is_refused(source: Path, tmp_path: Path, table: str, words: str) -> None:
    (tmp_path / "subjects.csv").write_text(table)
    arguments = ["--source", str(source), "--store", str(tmp_path / "store")]
    with pytest.raises(InputError, match=words):
        main([*arguments, "--subjects", str(tmp_path / "subjects.csv")])
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--store", "x"], "wanted --source PATH"),
        (["--store", "x", "--source", "nowhere"], "found nothing at"),
        (["--store", "x", "--source", ".", "--task", "oops"], "wanted --task gli-2021"),
        (["--store", "x", "--source", ".", "--label-map", "0", "3"], "0 must mean background"),
        (
            ["--store", "x", "--source", ".", "--label-map", "1", "9"],
            "--label-map: wanted a stored label for",
        ),
        (
            ["--store", "x", "--source", ".", "--label-map", "300", "1"],
            "wanted values from 0 to 255 in the files, got 300",
        ),
        (
            ["--store", "x", "--source", ".", "--modalities", "flair", "t9"],
            "t9 is none .*: wanted some of flair, t1, t1ce",
        ),
        (
            ["--store", "x", "--source", ".", "--modalities", "flair", "t9", "--names", "flair", "FL"],
            "wanted the ending of t9 too, got flair",
        ),
        (["--store", "x", "--verify"], "wanted a store at"),
        (["--store", "gs://x", "--source", "."], "s3:// URL"),
        (["--store", "x", "--source", ".", "--subjects", "none.csv"], "wanted a CSV"),
    ],
)
def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        main(arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one case and not for three."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.processes
def test_a_full_disk_ends_with_one_line_and_a_store_that_opens(source: Path, small_disk: Path) -> None:
    with pytest.raises(InputError, match="is full; free space and run again, what is finished is kept"):
        main(["--source", str(source), "--store", str(small_disk / "store")])
    store = open_store(small_disk / "store")
    assert 1 <= len(store.case_ids) < 3
    assert all(verify_case(store, case_id) == () for case_id in store.case_ids)


def start(source: Path, store: Path, home: Path) -> "subprocess.Popen[str]":
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(ROOT / "ray_jobs" / "convert.py"), "--source", str(source), "--store", str(store)],
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.system  # killed and started again
def test_killed_the_next_run_finishes_only_what_is_missing(phantom_source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = start(phantom_source, store, tmp_path / "home")
    wait_for(lambda: process.poll() is not None or list(store.glob("cases/*/zarr.json")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("cases/*/zarr.json")}
    assert kept
    # Whatever a reader can open now is a whole case, listed or not.
    half_way: CohortStore = open_store(store)
    half_way.rebuild_index()
    assert verify_cohort(half_way) == ()
    kept = {path.parent.name: path.stat().st_mtime_ns for path in store.glob("cases/*/zarr.json")}
    process = start(phantom_source, store, tmp_path / "home")
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    all_cases = [case.case_id for case in find_cases(phantom_source).cases]
    finished = open_store(store)
    assert list(finished.case_ids) == all_cases
    report = report_of(store)
    assert sorted([*report["converted"], *report["skipped"]]) == all_cases  # type: ignore[misc]
    assert set(kept) <= set(report["skipped"])  # type: ignore[call-overload]
    for case_id, time_ns in kept.items():
        assert (store / "cases" / case_id / "zarr.json").stat().st_mtime_ns == time_ns
    assert verify_cohort(finished) == ()
