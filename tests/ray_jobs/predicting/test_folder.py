"""An output folder keeps what is finished, does again what is not, and mixes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.predicting.folder import CaseFolder, refuse_overlap
from storage import InputError

IDENTITY = {"thresholds": {"WT": 0.5}, "figures": True}
SOURCE = {"flair": ["flair.nii.gz", 12, 34]}


def open_folder(place: Path) -> CaseFolder:
    return CaseFolder(place, record="{case_id}_seg.json", made="predictions")


def finish(folder: CaseFolder, case_id: str = "one", content: bytes = b"labels") -> dict[str, Any]:
    files = {f"{case_id}_seg.nii.gz": content, f"figures/{case_id}.png": b"picture"}
    return folder.finish(files, {"case_id": case_id, "source": SOURCE})


def test_a_finished_case_is_known_again(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "out")
    folder.claim(IDENTITY)
    assert folder.finished({"one": SOURCE}) == {}
    record = finish(folder)
    again = open_folder(tmp_path / "out")
    again.claim(IDENTITY)
    assert again.finished({"one": SOURCE, "two": SOURCE}) == {"one": record}
    assert record["files"] == ["figures/one.png", "one_seg.nii.gz"]
    assert again.read("one_seg.nii.gz") == b"labels"
    files = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(files) == ["config.json", "one.png", "one_seg.json", "one_seg.nii.gz"]  # no half-written one


def test_what_is_not_whole_or_not_of_these_files_is_not_finished(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "out")
    folder.claim(IDENTITY)
    finish(folder)
    assert folder.finished({"one": {"flair": ["flair.nii.gz", 12, 35]}}) == {}
    (tmp_path / "out" / "figures" / "one.png").unlink()
    assert folder.finished({"one": SOURCE}) == {}
    finish(folder)
    (tmp_path / "out" / "one_seg.json").unlink()  # a run killed between files and record
    assert folder.finished({"one": SOURCE}) == {}


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "out")
    folder.claim(IDENTITY)
    with pytest.raises(InputError, match=r"made otherwise \(thresholds.WT: 0.5 -> 0.4\): give another --output"):
        folder.claim({**IDENTITY, "thresholds": {"WT": 0.4}})
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == IDENTITY


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="found other files"):
        open_folder(tmp_path).claim(IDENTITY)
    with pytest.raises(InputError, match="found a file"):
        open_folder(tmp_path / "thesis.tex").claim(IDENTITY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot read"):
        open_folder(tmp_path / "broken").claim(IDENTITY)


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "out")
    folder.claim(IDENTITY)
    (tmp_path / "out" / "figures").write_text("a file where a folder has to be")
    with pytest.raises(InputError, match=r"cannot use .*out: .*figures"):
        finish(folder)
    assert folder.finished({"one": SOURCE}) == {}


def test_a_refused_case_leaves_nothing_of_what_it_was(tmp_path: Path) -> None:
    folder = open_folder(tmp_path / "out")
    folder.claim(IDENTITY)
    finish(folder, "one")
    finish(folder, "two")
    folder.discard("one")
    folder.discard("three")
    left = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {"config.json", "two_seg.json", "two_seg.nii.gz", "figures/two.png"}


@pytest.mark.parametrize(
    ("output", "refused"), [("scans", True), ("scans/out", True), ("out", False), ("scans2", False)]
)
def test_predictions_never_lie_among_the_scans(output: str, refused: bool, tmp_path: Path) -> None:  # noqa: FBT001
    if refused:
        with pytest.raises(InputError, match="wanted an --output outside the input"):
            refuse_overlap(tmp_path / output, tmp_path / "scans")
    else:
        refuse_overlap(tmp_path / output, tmp_path / "scans")
