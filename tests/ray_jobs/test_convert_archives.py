"""Archives as they are downloaded: converted as the folder in them would be, and nothing of them written to disk."""

import dataclasses
import gzip
import io
import json
import os
import random
import re
import struct
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from ray_jobs.convert import main
from ray_jobs.on_ray import conversion, conversion_job
from ray_jobs.on_ray.conversion import convert_cohort
from ray_jobs.on_ray.conversion_job import REFUSED
from ray_jobs.predicting import input
from ray_jobs.settings.convert_config import ConvertConfig
from ray_jobs.settings.input_check import check_input
from ray_jobs.settings.presets import preset
from ray_jobs.training.run_input import find_or_make_store
from storage import MODALITIES, InputError, list_source, open_store
from storage.archives import passing_cases, stream_cases, tar_stream
from storage.archives.ranges import Ranges
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import TASKS
from storage.store.objects import Objects

KINDS = ("zip", "tar", "tar.gz")
ENDS = ("flair", "seg", "t1", "t1ce", "t2")
TOLD = ("--task", "gli-2021")
TIME = 1_600_000_000  # even: zip counts in two seconds

Files = dict[str, bytes]


def scan(seed: int, *, label: bool) -> bytes:
    """A small NIfTI file, not compressed."""
    random_ = np.random.default_rng(seed)
    voxels = np.zeros((12, 11, 10), dtype=np.uint8 if label else np.int16)
    voxels[2:9, 2:9, 2:8] = random_.choice([1, 2, 4], (7, 7, 6)) if label else random_.integers(1, 900, (7, 7, 6))
    return nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0])).to_bytes()


def cohort(*, cases: int = 3, extension: str = ".nii.gz") -> Files:
    """Files of a cohort by their path, each case's together."""
    files: Files = {}
    for number in range(cases):
        for index, end in enumerate(ENDS):
            data = scan(10 * number + index, label=end == "seg")
            packed = gzip.compress(data, mtime=0) if extension == ".nii.gz" else data
            files[f"top/HGG/Brats18_T_{number}_1/Brats18_T_{number}_1_{end}{extension}"] = packed
    return files


def pack(path: Path, files: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """An archive of the kind that its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                assert isinstance(data, bytes)
                info = zipfile.ZipInfo(name, (2020, 9, 13, 12, 26, 40))
                archive.writestr(info, data, zipfile.ZIP_DEFLATED)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size, info.mtime = len(data), TIME
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return path


def unpack(folder: Path, files: Files) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report_of(store: Path) -> dict[str, object]:
    report: dict[str, object] = json.loads((store / "report.json").read_text())
    return report


def refusals_of(store: Path) -> dict[str, str]:
    """The finding of each refusal, by case or member."""
    return {refusal["case_id"]: refusal["finding"] for refusal in report_of(store)["refused"]}  # type: ignore[attr-defined]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of an archive brought."""
    sizes: list[int] = []
    read_at = Ranges.read_at

    def counting(self: Ranges, offset: int, size: int) -> bytes:
        data = read_at(self, offset, size)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(Ranges, "read_at", counting)
    return sizes


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_is_that_of_the_folder_and_nothing_else_is_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / f"download.{kind}", cohort())
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "temporary")
    assert main(["--source", str(archive), "--store", str(tmp_path / "store")]) == 0
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert written == {"temporary", "store", archive.name} and not list((tmp_path / "temporary").iterdir())
    folder = unpack(tmp_path / "folder", cohort())
    for listed in list_source(archive).top.walk():
        for name, file in listed.files.items():
            time = file.stat().st_mtime_ns
            os.utime(folder / listed.path.inside / name, ns=(time, time))  # type: ignore[attr-defined]
    assert main(["--source", str(folder), "--store", str(tmp_path / "same")]) == 0
    stored, same = below(tmp_path / "store"), below(tmp_path / "same")
    first, second = (json.loads(files.pop("report.json")) for files in (stored, same))
    assert stored == same and len(stored) > 3
    assert {**first, "store_uri": "", "seconds": 0} == {**second, "store_uri": "", "seconds": 0}
    assert [open_store(tmp_path / "store").info(name).grade for name in first["converted"]] == ["HGG"] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_bucket_as_on_disk(kind: str, bucket: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"download.{kind}", cohort())
    Objects(bucket).put(archive.name, archive.read_bytes())
    for source, store in ((f"{bucket}/{archive.name}", "remote"), (str(archive), "local")):
        assert main(["--source", source, "--store", str(tmp_path / store), "--verify"]) == 0
    remote, local = below(tmp_path / "remote"), below(tmp_path / "local")
    del remote["report.json"], local["report.json"]
    assert remote == local and len(remote) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do_then_a_file_in_it_is_another_and_only_its_case_is_converted(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = cohort(extension=".nii")  # where another file has the same size
    arguments = ["--source", str(pack(tmp_path / f"download.{kind}", files)), "--store", str(tmp_path / "store")]
    for _ in range(2):
        assert main(arguments) == 0
    assert "nothing to do: all 3 cases" in capsys.readouterr().out
    files["top/HGG/Brats18_T_1_1/Brats18_T_1_1_t1.nii"] = scan(99, label=False)
    archive = pack(tmp_path / f"download.{kind}", files)
    if kind != "zip":  # whose checksum says it without another time
        with tarfile.open(archive) as packed:
            assert {info.mtime for info in packed} == {TIME}
        return
    assert main([*arguments, "--verify"]) == 0
    assert report_of(tmp_path / "store")["changed"] == report_of(tmp_path / "store")["converted"] == ["Brats18_T_1_1"]


@pytest.mark.parametrize("kind", KINDS)
def test_unpacked_later_or_packed_otherwise_it_is_known_by_its_bytes(kind: str, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert main(["--source", str(unpack(tmp_path / "folder", cohort())), "--store", store]) == 0
    assert main(["--source", str(pack(tmp_path / f"download.{kind}", cohort())), "--store", store, *TOLD]) == 0
    assert report_of(tmp_path / "store")["converted"] == []
    assert len(report_of(tmp_path / "store")["skipped"]) == 3  # type: ignore[arg-type]


class Killed(BaseException):
    """What no handler of errors catches."""


@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_the_middle_the_next_run_does_the_rest(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / f"download.{kind}", cohort(cases=4))
    arguments = ["--source", str(archive), "--store", str(tmp_path / "store")]
    convert = conversion.convert_or_refuse
    begun: list[str] = []
    one_begins = threading.Lock()

    def convert_two(case: conversion.Case, store: conversion.CohortStore) -> object:
        with one_begins:
            if len(begun) == 2:
                raise Killed
            begun.append(case.case_id)
        return convert(case, store)

    monkeypatch.setattr(conversion, "convert_or_refuse", convert_two)
    with pytest.raises(Killed):
        main(arguments)
    monkeypatch.setattr(conversion, "convert_or_refuse", convert)
    assert main(arguments) == 0
    report = report_of(tmp_path / "store")
    assert report["skipped"] == sorted(begun) and len(report["converted"]) == 2  # type: ignore[arg-type]
    assert len(open_store(tmp_path / "store").case_ids) == 4


def test_a_compressed_tar_is_read_once_and_a_case_of_it_is_held(
    tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = cohort(cases=4)
    monkeypatch.setattr(passing_cases, "HELD_BYTES", sum(map(len, files.values())) // 2)
    archive = pack(tmp_path / "download.tar.gz", files)
    assert main(["--source", str(archive), "--store", str(tmp_path / "store")]) == 0
    head = 512  # by which it is known
    assert sum(read) in range(archive.stat().st_size, archive.stat().st_size + 4 * head)


def test_where_cases_do_not_lie_together_it_is_read_again(
    tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name.replace("top/", "labels/") if "_seg" in name else name: data for name, data in cohort().items()}
    archive = pack(tmp_path / "download.tar.gz", dict(sorted(files.items())))
    assert main(["--source", str(archive), "--store", str(tmp_path / "store")]) == 0
    once = sum(read)
    assert once < 1.2 * archive.stat().st_size  # all was held
    read.clear()
    monkeypatch.setattr(passing_cases, "HELD_BYTES", 1)
    assert main(["--source", str(archive), "--store", str(tmp_path / "again")]) == 0
    # Once for the names, once for labels, which had gone by, and once for the cases.
    assert sum(read) == pytest.approx(3 * once, rel=0.1)
    assert {name: data for name, data in below(tmp_path / "store").items() if name != "report.json"} == {
        name: data for name, data in below(tmp_path / "again").items() if name != "report.json"
    }


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_lies_anywhere_in_it_is_read_once_and_the_rest_not(kind: str, tmp_path: Path, read: list[int]) -> None:
    large = {"notes.bin": random.Random(0).randbytes(1 << 20)}
    archive = pack(tmp_path / f"download.{kind}", {**large, **cohort()})
    assert main(["--source", str(archive), "--store", str(tmp_path / "store"), *TOLD]) == 0
    assert sum(read) < 1 << 20


CASE = "top/HGG/Brats18_T_1_1/Brats18_T_1_1"


def in_zip(path: Path, name: str, change: Callable[[bytearray, int, int], None]) -> None:
    """Change the raw bytes of a zip, given where a member's local header and its entry in the directory begin."""
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        local = archive.getinfo(name).header_offset
    entry = raw.rindex(name.encode()) - 46
    assert raw[entry : entry + 4] == b"PK\1\2"
    change(raw, local, entry)
    path.write_bytes(raw)


def announce(raw: bytearray, local: int, entry: int) -> None:
    raw[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)


def encrypt(raw: bytearray, local: int, entry: int) -> None:
    raw[entry + 8] |= 1


def use_another_method(raw: bytearray, local: int, entry: int) -> None:
    raw[entry + 10] = 9


def make_a_link(raw: bytearray, local: int, entry: int) -> None:
    raw[entry + 5] = 3  # made on Unix
    raw[entry + 38 : entry + 42] = struct.pack("<I", 0o120777 << 16)


def damage(raw: bytearray, local: int, entry: int) -> None:
    raw[local + 120] ^= 0x55


def move_away(raw: bytearray, local: int, entry: int) -> None:
    raw[local] = 0


def test_members_of_a_zip_that_cannot_be_used(tmp_path: Path) -> None:
    changes = {
        announce: "announces 4294967280 bytes out of",
        encrypt: "encrypted",
        use_another_method: "compressed by method 9",
        make_a_link: "a symbolic link",
        damage: "damaged in the archive",
        move_away: "no file begins where its directory says",
    }
    archive = pack(tmp_path / "download.zip", cohort(cases=len(changes) + 1))
    for number, change in enumerate(changes):
        in_zip(archive, CASE.replace("_T_1_", f"_T_{number}_") + "_t1.nii.gz", change)
    assert main(["--source", str(archive), "--store", str(tmp_path / "store")]) == REFUSED
    found = refusals_of(tmp_path / "store")
    for number, finding in enumerate(changes.values()):
        assert finding in found.pop(f"Brats18_T_{number}_1")
    assert not found
    assert report_of(tmp_path / "store")["refused"][1]["file"] == f"{archive}/{CASE}_t1.nii.gz"  # type: ignore[index]
    assert report_of(tmp_path / "store")["converted"] == [f"Brats18_T_{len(changes)}_1"]


def test_of_a_bomb_nothing_is_unpacked_but_its_head(tmp_path: Path) -> None:
    files = cohort(extension=".nii")
    files[f"{CASE}_seg.nii"] += bytes(5 << 20)
    archive = pack(tmp_path / "download.zip", files)
    assert main(["--source", str(archive), "--store", str(tmp_path / "store"), *TOLD]) == REFUSED
    (found,) = refusals_of(tmp_path / "store").values()
    assert "the scan's own header" in found


@pytest.mark.parametrize("archive", ["tar", "tar.gz"])
def test_members_of_a_tar_that_are_no_files(archive: str, tmp_path: Path) -> None:
    kinds = {
        tarfile.SYMTYPE: "a symbolic link",
        tarfile.LNKTYPE: "a link to another member",
        tarfile.CHRTYPE: "a device",
        tarfile.FIFOTYPE: "a pipe",
    }
    files: dict[str, bytes | tarfile.TarInfo] = {**cohort(cases=len(kinds) + 1)}
    for number, kind in enumerate(kinds):
        info = tarfile.TarInfo(CASE.replace("_T_1_", f"_T_{number}_") + "_t1.nii.gz")
        info.type, info.linkname = kind, "/etc/passwd"
        files[info.name] = info
    packed = pack(tmp_path / f"download.{archive}", files)
    assert main(["--source", str(packed), "--store", str(tmp_path / "store")]) == REFUSED
    found = refusals_of(tmp_path / "store")
    for number, finding in enumerate(kinds.values()):
        assert finding in found.pop(f"Brats18_T_{number}_1")
    assert not found
    assert report_of(tmp_path / "store")["converted"] == [f"Brats18_T_{len(kinds)}_1"]


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_lead_out_or_are_archives_or_are_there_twice(kind: str, tmp_path: Path) -> None:
    files = {
        "../outside_t1.nii.gz": b"x",
        "/absolute_t1.nii.gz": b"x",
        "top/inner.tar.gz": b"x",
        "__MACOSX/top/._inner.zip": b"x",  # not what it is called
        **cohort(),
    }
    archive = pack(tmp_path / f"download.{kind}", files)
    if kind == "zip":
        with zipfile.ZipFile(archive, "a") as more, pytest.warns(UserWarning, match="Duplicate name"):
            more.writestr(f"{CASE}_t2.nii.gz", b"another")
    assert main(["--source", str(archive), "--store", str(tmp_path / "store"), *TOLD]) == REFUSED
    found = refusals_of(tmp_path / "store")
    assert found.pop("outside_t1.nii.gz") == "its path leads out of the archive"
    assert found.pop("inner.tar.gz") == "an archive within the archive"
    assert found.pop("absolute_t1.nii.gz") == "its path leads out of the archive"
    if kind == "zip":
        assert found.pop("Brats18_T_1_1") == "the archive has two files of this name"
    assert not found
    assert len(report_of(tmp_path / "store")["converted"]) == 2 + (kind != "zip")  # type: ignore[arg-type]
    assert not (tmp_path / "outside_t1.nii.gz").exists()


def test_a_tar_that_is_cut_off_or_damaged(tmp_path: Path) -> None:
    whole = pack(tmp_path / "download.tar", cohort(cases=4)).read_bytes()
    middle = whole.index(b"Brats18_T_2_1_t1.nii") - len("top/HGG/Brats18_T_2_1/")
    cut = {
        "cut.tar": whole[: middle + 1000],
        "header.tar": whole[:middle] + b"?" + whole[middle + 1 :],
        "cut.tar.gz": gzip_of(whole)[: len(gzip_of(whole[:middle])) + 100],
        "header.tar.gz": gzip_of(whole[:middle] + b"?" + whole[middle + 1 :]),
    }
    for name, raw in cut.items():
        (tmp_path / name).write_bytes(raw)
        store = tmp_path / f"store-{name}"
        assert main(["--source", str(tmp_path / name), "--store", str(store)]) == REFUSED, name
        found = refusals_of(store)
        assert "cannot be read past byte" in found[name], name
        assert report_of(store)["converted"] == ["Brats18_T_0_1", "Brats18_T_1_1"], name
        assert "Brats18_T_2_1" in found, name


def test_a_tar_gz_of_pieces_is_one_and_missing_its_last_piece_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack(tmp_path / "download.tar", cohort(cases=4)).read_bytes()
    middle = whole.index(b"top/HGG/Brats18_T_3_1/")
    first, second = gzip_of(whole[:middle]), gzip_of(whole[middle:])
    monkeypatch.setattr(tar_stream, "_BITE", len(first) + 1)  # the second begins in the middle of its first two bytes
    for pieces, converted in (([first, second, bytes(100)], 4), ([first], 3)):
        (tmp_path / "pieces.tar.gz").write_bytes(b"".join(pieces))
        store = tmp_path / f"store{converted}"
        status = main(["--source", str(tmp_path / "pieces.tar.gz"), "--store", str(store)])
        assert len(report_of(store)["converted"]) == converted  # type: ignore[arg-type]
        assert status == (0 if converted == 4 else REFUSED)
    assert "no end mark" in refusals_of(store)["pieces.tar.gz"]


def gzip_of(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def test_where_the_stream_is_wrong_only_files_with_a_checksum_are_believed(tmp_path: Path) -> None:
    plain = {name.replace("_T_", "_P_"): data for name, data in cohort(cases=2, extension=".nii").items()}
    last = {"notes.bin": random.Random(0).randbytes(1 << 18)}  # what is unpacked with the checksum is lost with it
    raw = bytearray(pack(tmp_path / "download.tar.gz", {**cohort(cases=2), **plain, **last}).read_bytes())
    raw[-8] ^= 1  # of the checksum at its end
    (tmp_path / "download.tar.gz").write_bytes(raw)
    assert main(["--source", str(tmp_path / "download.tar.gz"), "--store", str(tmp_path / "store")]) == REFUSED
    assert report_of(tmp_path / "store")["converted"] == ["Brats18_T_0_1", "Brats18_T_1_1"]
    found = refusals_of(tmp_path / "store")
    assert {"Brats18_P_0_1", "Brats18_P_1_1", "download.tar.gz"} == set(found)
    assert "has none of its own" in found["Brats18_P_0_1"]
    assert open_store(tmp_path / "store").case_ids == ("Brats18_T_0_1", "Brats18_T_1_1")


def test_files_of_a_case_that_lie_apart_are_held_within_a_bound_and_refused_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = cohort(cases=4, extension=".nii")
    apart = dict(sorted(files.items(), key=lambda item: item[0].rpartition("_")[2]))
    archive = pack(tmp_path / "download.tar.gz", apart)
    arguments = ["--source", str(archive), "--store"]
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    for module in (passing_cases, stream_cases):
        monkeypatch.setattr(module, "HELD_BYTES", sum(map(len, files.values())) // 4)
    assert main([*arguments, str(tmp_path / "store")]) == REFUSED
    report = report_of(tmp_path / "store")
    assert "apart in an archive that is read from its beginning" in report["refused"][0]["finding"]  # type: ignore[index]
    assert "decompress the archive to a .tar" in report["refused"][0]["remedy"]  # type: ignore[index]
    stored = below(tmp_path / "store")
    assert report["converted"] and len(report["converted"]) + len(report["refused"]) == 4  # type: ignore[arg-type]
    assert all(
        stored[name] == data for name, data in below(tmp_path / "whole").items() if name in stored and "cases/" in name
    )


def test_what_comes_late_in_the_one_pass_is_heeded(tmp_path: Path) -> None:
    """Grades, and a second folder with a case's id, which is refused as it is in a folder."""
    files = {name.replace("/HGG", ""): data for name, data in cohort().items()}
    again = {name.replace("top/", "top/again/"): data for name, data in files.items() if "_T_2_1/" in name}
    mapping = {"top/name_mapping.csv": b"Grade,BraTS_2018_subject_ID\nLGG,Brats18_T_0_1\nHGG,Brats18_T_1_1\n"}
    archive = pack(tmp_path / "download.tar.gz", {**files, **again, **mapping})
    assert main(["--source", str(archive), "--store", str(tmp_path / "store"), *TOLD, "--verify"]) == REFUSED
    store = open_store(tmp_path / "store")
    assert {case_id: store.info(case_id).grade for case_id in store.case_ids} == {
        "Brats18_T_0_1": "LGG",
        "Brats18_T_1_1": "HGG",
    }
    assert refusals_of(tmp_path / "store") == {"Brats18_T_2_1": "the same case id in 2 places"}


def test_cases_without_labels_in_a_compressed_tar(tmp_path: Path) -> None:
    files = {name: data for name, data in cohort().items() if not name.endswith("_T_1_1_seg.nii.gz")}
    archive = pack(tmp_path / "download.tar.gz", files)
    assert main(["--source", str(archive), "--store", str(tmp_path / "store")]) == 0
    assert report_of(tmp_path / "store")["unlabelled"] == ["Brats18_T_1_1"]


def test_a_size_that_tarfile_would_believe(tmp_path: Path) -> None:
    """A name that is said to take gigabytes goes into memory, and after a negative size the reader goes back."""
    for kind, size in ((tarfile.GNUTYPE_LONGNAME, 8 << 30), (tarfile.REGTYPE, -512)):
        info = tarfile.TarInfo("long")
        info.type, info.size = kind, size
        raw = pack(tmp_path / "download.tar", cohort(cases=2)).read_bytes()
        header = info.tobuf(tarfile.GNU_FORMAT)
        (tmp_path / "bad.tar").write_bytes(raw[: raw.index(b"top/HGG/Brats18_T_1_1/")] + header + bytes(2048))
        assert main(["--source", str(tmp_path / "bad.tar"), "--store", str(tmp_path / f"{size}"), *TOLD]) == REFUSED
        assert f"a header that announces {size} bytes" in refusals_of(tmp_path / f"{size}")["bad.tar"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("nothing.zip", None, "found nothing at"),
        ("scan.nii.gz", gzip_of(b"x"), "found a file at .*name the folder that it lies in"),
        ("cohort.tar.bz2", b"BZh91AY", "found a bzip2 archive at .*unpack it and name the folder"),
        ("cohort.zip", b"PK\3\4" + bytes(100), "directory, which comes last, cannot be read .*download it again"),
        ("cohort.tar.gz", gzip_of(b"x"), "wanted a tar archive, gzipped"),
        ("cohort.7z", b"7z\xbc\xaf\x27\x1c", "found a 7z archive"),
    ],
)
def test_a_source_that_is_none(name: str, data: bytes | None, message: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        main(["--source", str(tmp_path / name), "--store", str(tmp_path / "store")])
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_of_archives_says_so(kind: str, tmp_path: Path) -> None:
    archive = pack(tmp_path / f"download.{kind}", {"BraTS2021_Training_Data.tar": b"x"})
    with pytest.raises(InputError, match="an archive within the archive; take it out of there and name it"):
        main(["--source", str(archive), "--store", str(tmp_path / "store")])
    assert not (tmp_path / "store").exists()


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
def test_on_ray_as_here(tmp_path: Path) -> None:
    """What comes by in a compressed tar is converted by workers meanwhile."""
    archive = pack(tmp_path / "download.tar.gz", cohort(cases=6))
    convert_cohort(archive, str(tmp_path / "here"), task=TASKS["gli-2021"])
    assert main(["--source", str(archive), "--store", str(tmp_path / "store"), *TOLD]) == 0
    stored, here = below(tmp_path / "store"), below(tmp_path / "here")
    del stored["report.json"], here["report.json"]
    assert stored == here and len(stored) > 6


def test_a_prediction_reads_cases_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input, "refuse_hidden_source", lambda source: None)  # which asks Ray
    told = input.Told(task=None, label_map=LabelConvention(name="told", stored_by_source={0: 0, 1: 1, 2: 2, 4: 3}))
    folder = unpack(tmp_path / "folder", cohort())
    read = []
    for place in (folder, pack(tmp_path / "download.zip", cohort()), pack(tmp_path / "download.tar", cohort())):
        opened = input.open_cohort(str(place), TASKS["gli-2021"], modalities=MODALITIES, names={}, told=told, workers=1)
        read.append(opened.source.read("Brats18_T_1_1").arrays)
    for arrays in read[1:]:
        assert (arrays.image_MDHW == read[0].image_MDHW).all() and (arrays.label_DHW == read[0].label_DHW).all()
    stream = pack(tmp_path / "download.tar.gz", cohort())
    with pytest.raises(InputError, match=r"read from its beginning only; decompress it to a \.tar, or make a store"):
        input.open_cohort(str(stream), TASKS["gli-2021"], modalities=MODALITIES, names={}, told=told, workers=1)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_file_in_it_that_is_not_what_was_converted_is_found(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = cohort()
    assert main(["--source", str(unpack(tmp_path / "folder", files)), "--store", str(tmp_path / "store")]) == 0
    files[f"{CASE}_t1.nii.gz"] = gzip_of(scan(99, label=False))
    archive = pack(tmp_path / f"download.{kind}", files)
    config = ConvertConfig(store=str(tmp_path / "store"), source=str(archive), verify=True)
    assert conversion_job._verify(config, Console(width=300), lambda: None) == REFUSED
    assert f"{archive}/{CASE}_t1.nii.gz is not the file that was converted" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_training_takes_one_and_finds_its_store_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(preset("demo"), source=str(pack(tmp_path / f"download.{kind}", cohort())))
    check_input(config)
    store = find_or_make_store(config, Console(quiet=True))
    assert len(store.case_ids) == 3 and f"data/download.{kind}-" in store.uri
    before = below(tmp_path / "data")
    assert find_or_make_store(config, Console(quiet=True)).uri == store.uri
    after = below(tmp_path / "data")
    assert {name for name in before if before[name] != after[name]} <= {f"{Path(store.uri).name}/report.json"}
    if kind == "zip":
        few = dataclasses.replace(config, source=str(pack(tmp_path / "few.zip", cohort(cases=2))))
        with pytest.raises(InputError, match=r"wanted at least 3 labelled subjects below .*few\.zip"):
            check_input(few)


def renamed(files: Files, name: str) -> Files:
    """The files with the id and the endings of 2023 and later."""
    ends = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}
    found = {}
    for path, data in files.items():
        number, end = re.fullmatch(r".*_T_(\d+)_1_(\w+)\.nii\.gz", path).groups()  # type: ignore[union-attr]
        case_id = f"{name}-{int(number) + 1:05d}-000"
        found[f"top/{case_id}/{case_id}-{ends[end]}.nii.gz"] = data
    return found


@pytest.mark.parametrize("flags", [(), ("--task", "ped-2024")], ids=["two readings", "another task"])
def test_what_labels_mean_is_refused_as_for_a_folder_and_nothing_stays(flags: tuple[str, ...], tmp_path: Path) -> None:
    """The first case by itself is taken at its word, whatever the last one says."""
    files = cohort()
    last = nib.Nifti1Image.from_bytes(gzip.decompress(files["top/HGG/Brats18_T_2_1/Brats18_T_2_1_seg.nii.gz"]))
    voxels = np.asanyarray(last.dataobj)
    threes = nib.Nifti1Image(np.where(voxels == 4, 3, voxels).astype(np.uint8), last.affine).to_bytes()
    files["top/HGG/Brats18_T_2_1/Brats18_T_2_1_seg.nii.gz"] = gzip_of(threes)
    said = []
    for source in (unpack(tmp_path / "folder", files), pack(tmp_path / "download.tar.gz", files)):
        with pytest.raises(InputError) as refused:
            main(["--source", str(source), "--store", str(tmp_path / f"store-{source.name}"), *flags])
        assert not [path for path in (tmp_path / f"store-{source.name}").rglob("*") if path.is_file()]
        said.append(str(refused.value).replace(str(source), "SOURCE"))
    assert said[0] == said[1]


def test_what_a_later_case_says_of_all_is_heeded(tmp_path: Path) -> None:
    """1, 2 and 4 alone, in names of 2024's gliomas, are read as whatever the cohort is."""
    files = renamed(cohort(), "BraTS-GLI")
    for name, data in files.items():
        if name.endswith("seg.nii.gz"):
            image = nib.Nifti1Image.from_bytes(gzip.decompress(data))
            voxels = np.asanyarray(image.dataobj).copy()
            voxels[voxels == 4] = 3
            voxels[2, 2, 2] = 4 if "00003" in name else 1
            files[name] = gzip_of(nib.Nifti1Image(voxels, image.affine).to_bytes())
    for source, store in ((unpack(tmp_path / "folder", files), "here"), (pack(tmp_path / "a.tar.gz", files), "there")):
        assert main(["--source", str(source), "--store", str(tmp_path / store)]) == 0
    with pytest.raises(InputError, match=r"--task says gli-2023 .*found the values .*4 in 1 case"):
        main(["--source", str(tmp_path / "a.tar.gz"), "--store", str(tmp_path / "told"), "--task", "gli-2023"])
    assert not [path for path in (tmp_path / "told").rglob("*") if path.is_file()]
    here, there = open_store(tmp_path / "here"), open_store(tmp_path / "there")
    assert here.task == there.task == TASKS["gli-2024"]
    for case_id in here.case_ids:
        assert here.info(case_id).label_convention == there.info(case_id).label_convention
        assert (here.read_case(case_id).label_DHW == there.read_case(case_id).label_DHW).all()  # type: ignore[union-attr]
