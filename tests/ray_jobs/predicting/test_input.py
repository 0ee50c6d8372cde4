"""A folder to be predicted: a label whose header lost its place is left out, and scored when the user says so."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ray_jobs.predicting.input import Told, open_cohort
from storage.labels.conventions import BRATS_124, MODALITIES
from storage.labels.tasks import GLI_2021_TASK

CASE = "BraTS2021_00000"


def test_a_label_without_a_place_is_scored_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.predicting.input.refuse_hidden_source", lambda _: None)  # asks Ray for its nodes
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = -239
    scan = np.zeros((8, 9, 7), np.int16)
    scan[2:6, 2:7, 2:5] = np.arange(60).reshape(4, 5, 3)
    label = np.where(scan > 40, 4, 0).astype(np.uint8)
    (tmp_path / CASE).mkdir()
    for role in MODALITIES:
        nib.save(nib.Nifti1Image(scan, affine), tmp_path / CASE / f"{CASE}_{role}.nii.gz")
    nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / CASE / f"{CASE}_seg.nii.gz")
    cohorts = [
        open_cohort(
            str(tmp_path),
            GLI_2021_TASK,
            modalities=MODALITIES,
            names={},
            told=Told(task=None, label_map=BRATS_124),
            workers=1,
            trust_grid=trust_grid,
        )
        for trust_grid in (False, True)
    ]
    left_out, scored = (cohort.source.read(CASE) for cohort in cohorts)
    assert left_out.arrays.label_DHW is None
    assert "--trust-grid" in str(left_out.label_refused)
    assert scored.arrays.label_DHW is not None
    assert np.count_nonzero(scored.arrays.label_DHW) == np.count_nonzero(label)
    # A record of the case that was not scored is not one of the case that is.
    assert cohorts[0].sources != cohorts[1].sources
