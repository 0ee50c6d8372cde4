"""The score command as a user meets it: what it prints, writes and returns, and what a second run does."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from scoring import score_case
from storage import TASKS
from storage.labels.conventions import BRATS_124

Command = Callable[..., "subprocess.CompletedProcess[str]"]
IDS = [f"BraTS20_Training_00{number}" for number in (1, 2, 3, 4)]
ONE, TWO, THREE, FOUR = IDS


@pytest.fixture
def predictions(phantom_source: Path, tmp_path: Path) -> Path:
    """A good prediction, one of another shape, one whose name fits nothing, and none for the fourth case."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for case_id, name in ((ONE, f"team_{ONE}"), (TWO, TWO), (THREE, "nobody")):
        image = nib.load(phantom_source / case_id / f"{case_id}_seg.nii.gz")
        rolled = np.roll(np.asanyarray(image.dataobj), 2, axis=0).astype(np.uint8)
        values = rolled[1:] if case_id == TWO else rolled
        nib.save(nib.Nifti1Image(values, image.affine), folder / f"{name}.nii.gz")
    return folder


@pytest.mark.processes
def test_segmentations_are_scored_and_again_only_what_is_missing(
    run_here: Command,
    on_shared_head: None,
    phantom_source: Path,
    predictions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = tmp_path / "labels"
    for case_id in IDS:
        shutil.copytree(phantom_source / case_id, labels / case_id)
    output = tmp_path / "out"
    arguments = ["--prediction", str(predictions), "--label", str(labels), "--output", str(output), "--rules", "2023"]
    with monkeypatch.context() as alone:  # on one machine no Ray starts
        alone.delenv("RAY_ADDRESS")
        alone.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was to start"))
        done = run_here("score.py", *arguments)
    assert done.returncode == 3, done.stdout + done.stderr
    for said in (
        "2 of 2 cases to do",
        "by the rules of BraTS 2023, of the 1 with a label",
        f"refused nobody ({predictions}/nobody.nii.gz): none of 4 labels has its name",
        f"refused {FOUR}: no prediction has its name",
        f"refused {TWO}: {predictions}/{TWO}.nii.gz: shape ",
    ):
        assert said in done.stdout, done.stdout
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["rules"] == "2023" and metrics["settings"]["task"] == "gli-2021"
    assert set(metrics["refused"]) == {"nobody", TWO, THREE, FOUR}
    page = (output / "report.html").read_text()
    assert "1 cases scored, 4 refused. Scores are by the rules of BraTS 2023." in page
    # Each number is that of the engine, to the last bit.
    true, predicted = (
        BRATS_124.to_stored(np.asanyarray(nib.load(path).dataobj).astype(np.uint8).T)
        for path in (labels / ONE / f"{ONE}_seg.nii.gz", predictions / f"team_{ONE}.nii.gz")
    )
    zooms = nib.load(labels / ONE / f"{ONE}_seg.nii.gz").header.get_zooms()
    wanted = score_case(
        np.ascontiguousarray(predicted),
        np.ascontiguousarray(true),
        task=TASKS["gli-2021"],
        rules="2023",
        spacing_mm=[float(side) for side in reversed(zooms)],
    )
    rows = list(csv.DictReader((output / "metrics.csv").read_text().splitlines()))
    assert {row["rules"] for row in rows} == {"2023"}
    for row in rows[:3]:
        assert row["case_id"] == ONE
        assert {name: float(row[name]) for name in wanted[row["region"]]} == wanted[row["region"]]
    assert 0 < wanted["WT"]["lesion_dice"] < 1

    record = (output / f"{ONE}_scores.json").stat().st_mtime_ns
    shutil.copy(labels / TWO / f"{TWO}_seg.nii.gz", predictions / f"{TWO}.nii.gz")
    again = run_here("score.py", *arguments)  # on the cluster
    assert again.returncode == 3, again.stdout + again.stderr
    assert "1 of 2 cases to do" in again.stdout and "2 cases scored, 3 refused" in again.stdout
    assert (output / f"{ONE}_scores.json").stat().st_mtime_ns == record
