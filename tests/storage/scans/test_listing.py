"""A source that is no folder on disk: case search and reading ask nothing of its files but what a ScanFile has."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from storage.scans.case_search import find_cases
from storage.scans.listing import Folder, Listing, ScanFile, list_folder
from storage.scans.nifti import file_digest


class State(NamedTuple):
    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True)
class HeldFile:
    """A file of a folder that is only named."""

    path: PurePosixPath
    data: bytes = b""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> PurePosixPath:
        return self.path.parent

    @property
    def parts(self) -> tuple[str, ...]:
        return self.path.parts

    def __str__(self) -> str:
        return f"held:{self.path}"

    def read_bytes(self) -> bytes:
        return self.data

    def stat(self) -> State:
        return State(len(self.data), 0)


def folder_of(path: str, names: dict[str, bytes], **folders: Folder) -> Folder:
    files: dict[str, ScanFile] = {name: HeldFile(PurePosixPath(path, name), data) for name, data in names.items()}
    return Folder(path=PurePosixPath(path), files=files, folders=folders)


def test_cases_grades_and_refusals_of_files_that_are_on_no_disk() -> None:
    names = {f"a_{end}.nii.gz": b"" for end in ("flair", "t1", "t1ce", "t2", "seg")}
    mapping = {"name_mapping.csv": b"Grade,BraTS_2020_subject_ID\nHGG,a\n"}
    top = folder_of("top", mapping, a=folder_of("top/a", names), b=folder_of("top/b", {"b_t1.nii.gz": b""}))
    found = find_cases(Listing(top=top))
    assert [(case.case_id, case.grade, str(case.label)) for case in found.cases] == [
        ("a", "HGG", "held:top/a/a_seg.nii.gz")
    ]
    assert [(refusal.case_id, refusal.file) for refusal in found.refused] == [("b", "top/b")]


def test_a_decathlon_that_is_on_no_disk() -> None:
    described = b'{"modality": {"0": "FLAIR"}, "labels": {"0": "background", "1": "edema", "2": "non-enhancing", ' + (
        b'"3": "enhancing"}}'
    )
    images = folder_of("task/imagesTr", {"BRATS_1.nii.gz": b"", "BRATS_2.nii.gz": b""})
    labels = folder_of("task/labelsTr", {"BRATS_1.nii.gz": b""})
    top = folder_of("task", {"dataset.json": described}, imagesTr=images, labelsTr=labels)
    found = find_cases(Listing(top=top), modalities=("flair",))
    assert [case.case_id for case in found.cases] == ["BRATS_1"]
    assert [refusal.finding for refusal in found.refused] == ["imagesTr/BRATS_2.nii.gz has no labelsTr/BRATS_2.nii.gz"]


def test_the_digest_of_a_file_is_over_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    assert file_digest(HeldFile(PurePosixPath("a"), b"bytes")) == file_digest(tmp_path / "a") is not None
    assert file_digest(tmp_path / "b") is None


def test_a_link_back_to_a_folder_above_is_that_folder_and_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    top = list_folder(tmp_path).top
    assert top.folders["a"].folders["back"] is top
    assert [str(folder.path) for folder in top.walk()] == [str(tmp_path), str(tmp_path / "a")]
    assert [str(folder.path) for folder in top.walk(depth=0)] == [str(tmp_path)]
