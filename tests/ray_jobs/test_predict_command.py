"""The predict command as a user meets it: what it prints, writes and returns, and what a second run does."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ray_jobs.predict import main
from storage import CohortStore, InputError
from storage.labels.conventions import BRATS_124

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Run = Callable[..., tuple[int, str]]
MakeCheckpoint = Callable[..., str]
ONE, TWO, THREE = (f"BraTS20_Training_00{number}" for number in (1, 2, 3))


@pytest.fixture
def run(on_shared_head: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return its exit status and what it printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def predict(*arguments: str) -> tuple[int, str]:
        status = main(arguments)
        return status, capsys.readouterr().out

    return predict


@pytest.fixture
def source(phantom_source: Path, tmp_path: Path) -> Path:
    """Three cases: a whole one, one without a label, one with a damaged scan."""
    for case_id in (ONE, TWO, THREE):
        shutil.copytree(phantom_source / case_id, tmp_path / "source" / case_id)
    (tmp_path / "source" / TWO / f"{TWO}_seg.nii.gz").unlink()
    damaged = tmp_path / "source" / THREE / f"{THREE}_t1ce.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    return tmp_path / "source"


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def labels_of(path: Path) -> Any:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.mark.processes
def test_a_folder_is_predicted_and_again_only_what_is_missing(
    command: Command, run: Run, make_checkpoint: MakeCheckpoint, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    label = nib.load(source / ONE / f"{ONE}_seg.nii.gz")
    affine = label.affine + np.array([[0, 0, 0, 0.05], *[[0.0] * 4] * 3])
    nib.save(nib.Nifti1Image(np.asanyarray(label.dataobj), affine), source / ONE / f"{ONE}_seg.nii.gz")
    checkpoints = [make_checkpoint("a", seed=1), make_checkpoint("b", seed=2, thresholds=(0.5, 0.499, 0.498))]
    arguments = ["--input", str(source), "--output", str(output), "--checkpoint", *checkpoints]
    done = command("predict.py", *arguments)  # as a user would; all else here in this process
    assert done.returncode == 3, done.stdout + done.stderr
    assert f"refused {THREE} (" in done.stdout and "t1ce.nii.gz" in done.stdout
    assert "2 cases segmented, 1 refused" in done.stdout and "of the 1 with a label" in done.stdout
    made = files_of(output)
    assert set(made) == {
        *("config.json", "metrics.csv", "metrics.json", "report.html"),
        *(f"{case_id}_seg.{end}" for case_id in (ONE, TWO) for end in ("nii.gz", "json")),
        *(f"figures/{case_id}_{end}.png" for case_id in (ONE, TWO) for end in ("sections", "3d")),
        *(f"viewer/{name}.js" for name in (ONE, TWO, "niivue")),
    }
    metrics = json.loads((output / "metrics.json").read_text())
    assert [case["case_id"] for case in metrics["cases"]] == [ONE, TWO] and list(metrics["refused"]) == [THREE]
    mended = "grids a little apart, taken as one"
    assert metrics["cases"][0]["notes"] == [f"{mended}: label by 0.05 mm"] and "notes" not in metrics["cases"][1]
    assert f"{mended}: 1 case, {ONE} (label by 0.05 mm)" in metrics["notices"]
    assert f"notice: {mended}" in done.stdout
    assert metrics["settings"]["thresholds"] == pytest.approx({"WT": 0.501, "TC": 0.5, "ET": 0.499})
    assert len(metrics["settings"]["checkpoints"]) == 2
    # The scores are those of the file against the label as it lies there.
    labels, truth = labels_of(output / f"{ONE}_seg.nii.gz"), labels_of(source / ONE / f"{ONE}_seg.nii.gz")
    predicted, present = np.isin(labels, (1, 4)), np.isin(truth, (1, 4))
    rows = list(csv.DictReader((output / "metrics.csv").read_text().splitlines()))
    (row,) = [row for row in rows if (row["case_id"], row["region"]) == (ONE, "TC")]
    dice = 2 * (predicted & present).sum() / (predicted.sum() + present.sum())
    assert float(row["dice"]) == pytest.approx(dice, abs=1e-6) and 0 < dice < 1
    assert float(row["predicted_mm3"]) == pytest.approx(predicted.sum() * 8)
    assert {row["rules"] for row in rows} - {""} == {metrics["rules"]} == {"plain"} and "by plain rules" in done.stdout

    status, printed = run(*arguments)
    assert status == 3 and "1 of 3 cases to do" in printed
    unchanged = {name for name in made if name.startswith(("Bra", "fig", "config"))}
    assert {name: files_of(output)[name] for name in unchanged} == {name: made[name] for name in unchanged}

    changes = r"\(thresholds.ET: 0.499 -> 0.5; .*; viewer: None -> False\)"
    with pytest.raises(InputError, match=rf"were made otherwise {changes}: give another --output"):
        run(*arguments, "--thresholds", "0.5", "0.5", "0.5", "--no-viewer")
    assert {name: files_of(output)[name] for name in unchanged} == {name: made[name] for name in unchanged}


@pytest.mark.processes
def test_a_mended_case_and_a_changed_one_are_done_again(
    run: Run, make_checkpoint: MakeCheckpoint, phantom_source: Path, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ["--input", str(source), "--output", str(output), "--no-figures", "--workers", "1"]
    older = make_checkpoint(
        "a", seed=1, modalities=None
    )  # it does not say what it was trained on: any four scans will do
    arguments += ["--checkpoint", older, "--write-task", "msd"]
    assert run(*arguments)[0] == 3
    before = files_of(output)
    shutil.copy(phantom_source / THREE / f"{THREE}_t1ce.nii.gz", source / THREE)  # mended
    shutil.copy(phantom_source / TWO / f"{TWO}_seg.nii.gz", source / TWO)  # labelled in the meantime
    status, printed = run(*arguments)
    assert status == 0 and "2 of 3 cases to do" in printed
    metrics = json.loads((output / "metrics.json").read_text())
    assert [case["labelled"] for case in metrics["cases"]] == [True, True, True] and metrics["refused"] == {}
    after = files_of(output)
    assert after[f"{ONE}_seg.nii.gz"] == before[f"{ONE}_seg.nii.gz"]
    assert after[f"{TWO}_seg.nii.gz"] > before[f"{TWO}_seg.nii.gz"]
    (source / TWO / f"{TWO}_flair.nii.gz").write_bytes(b"")  # damaged since
    assert run(*arguments)[0] == 3
    assert not [name for name in files_of(output) if TWO in name]  # nobody takes the old one for this one's
    with pytest.raises(InputError, match=r"were made otherwise \(modalities: "):
        run(*arguments, "--modalities", "t1", "flair", "t1ce", "t2")
    assert set(np.unique(labels_of(output / f"{ONE}_seg.nii.gz"))) <= {0, 1, 2, 3}


@pytest.mark.processes
def test_a_store_is_predicted_with_fixed_thresholds(
    run: Run, make_checkpoint: MakeCheckpoint, phantom_store: CohortStore, tmp_path: Path
) -> None:
    """A checkpoint taken in mid-epoch has no thresholds of its own."""
    checkpoint = make_checkpoint("a", seed=1, thresholds=None)
    arguments = ["--checkpoint", checkpoint, "--input", phantom_store.uri, "--no-figures"]
    arguments += ["--output", str(tmp_path / "out")]
    with pytest.raises(InputError, match="give --thresholds WT TC ET"):
        run(*arguments)
    assert not (tmp_path / "out").exists()
    assert run(*arguments, "--thresholds", "0", "0.0001", "1")[0] == 0
    info = phantom_store.infos()[0]
    head = labels_of(tmp_path / "out" / f"{info.case_id}_seg.nii.gz")
    assert (head == 1).sum() == info.brain_voxels and set(np.unique(head)) == {1, 2}  # no ET at 1, WT everywhere at 0
    assert BRATS_124.name == json.loads((tmp_path / "out" / "config.json").read_text())["write_convention"]
    assert (tmp_path / "out" / "report.html").read_text().count("<tbody") == 1 + len(phantom_store.case_ids)


@pytest.mark.processes
def test_files_of_ones_own_names_without_labels_need_no_word_on_labels(
    run: Run, make_checkpoint: MakeCheckpoint, phantom_source: Path, tmp_path: Path
) -> None:
    endings = {scan: f"_{scan}_scan.nii.gz" for scan in ("flair", "t1", "t1ce", "t2")}
    for scan, ending in endings.items():
        (tmp_path / "mine").mkdir(exist_ok=True)
        shutil.copy(phantom_source / ONE / f"{ONE}_{scan}.nii.gz", tmp_path / "mine" / f"anna{ending}")
    names = [word for pair in endings.items() for word in pair]
    arguments = ["--input", str(tmp_path / "mine"), "--names", *names, "--output", str(tmp_path / "out")]
    status, printed = run(*arguments, "--no-figures", "--checkpoint", make_checkpoint("a", seed=1))
    assert status == 0 and "labels as brats-124" in printed
    assert set(np.unique(labels_of(tmp_path / "out" / "anna_seg.nii.gz"))) <= {0, 1, 2, 4}


@pytest.mark.processes
def test_a_case_whose_label_does_not_fit_is_predicted_without_scores(
    run: Run, make_checkpoint: MakeCheckpoint, source: Path, tmp_path: Path
) -> None:
    shutil.rmtree(source / TWO)
    shutil.rmtree(source / THREE)
    (source / ONE / f"{ONE}_seg.nii.gz").write_bytes(b"")
    arguments = ["--input", str(source), "--output", str(tmp_path / "out"), "--no-figures"]
    status, printed = run(*arguments, "--checkpoint", make_checkpoint("a", seed=1))
    assert status == 0 and f"not scored {ONE} (" in printed
    (case,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["cases"]
    assert not case["labelled"] and "zero bytes" in case["label_refused"]


@pytest.mark.processes
def test_where_no_case_can_be_segmented_that_is_written_too(
    run: Run, make_checkpoint: MakeCheckpoint, source: Path, tmp_path: Path
) -> None:
    shutil.rmtree(source / ONE)
    shutil.rmtree(source / TWO)
    arguments = ["--input", str(source), "--output", str(tmp_path / "out"), "--task", "gli-2021"]
    status, printed = run(*arguments, "--checkpoint", make_checkpoint("a", seed=1))
    assert status == 3 and "no case could be segmented" in printed
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["cases"] == [] and list(metrics["refused"]) == [THREE]
    assert THREE in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--thresholds", "0.5", "0.5", "1.5"], r"--thresholds must lie in \[0, 1\]"),
        (["--smallest-mm3", "-1", "0", "0"], "--smallest-mm3 must be 0 or more"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--modalities", "flair", "t1"], "was trained on flair, t1, t1ce, t2, in that order, --modalities"),
        (["--output", "scans/out"], "wanted an --output outside the input"),
        (["--checkpoint", "scans"], "wanted a checkpoint or a run with a validated one"),
    ],
)
def test_bad_arguments(
    arguments: list[str], words: str, make_checkpoint: MakeCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    given = {"--checkpoint": [make_checkpoint("a", seed=1)], "--input": ["scans"], "--output": ["out"]}
    given |= {arguments[0]: arguments[1:]}
    with pytest.raises(InputError, match=words):
        main([word for flag, values in given.items() for word in (flag, *values)])
    assert not (tmp_path / "out").exists()
