"""What a run's page advises, by what its folder says."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoints.checkpoint import CheckpointRecord
from ray_jobs.reporting.next_steps import next_steps, steps_after_folds
from ray_jobs.reporting.run_record import RunRecord, read_run
from tests.ray_jobs.recorded import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    folder = write_run(tmp_path_factory.mktemp("runs"))
    return read_run(str(folder), folder.name)


def said(run: RunRecord, **changes: Any) -> str:
    assert run.summary is not None
    return "\n".join(next_steps(dataclasses.replace(run, summary={**run.summary, **changes})))


def test_of_a_run_like_most(run: RunRecord) -> None:
    text = said(run)
    assert "2 cases could not be read (BraTS20_Training_098, BraTS20_Training_099)" in text
    assert "Look at BraTS20_Training_003 first: its mean IoU is 0.100" in text
    assert "compute-bound, as it should be" in text
    assert "5 validation subjects say little: `--splits.folds 5`" in text
    assert "Restarts lost 12% of the time" in text
    assert f"predict.py --checkpoint {run.uri} --input" in text
    for other in ("No better than", "The last epoch", "by heart", "not finite"):
        assert other not in text


def test_of_one_no_better_than_a_threshold(run: RunRecord) -> None:
    assert "No better than a threshold on a single scan" in said(run, baseline_iou={"mean": 0.9})


def best(run: RunRecord, epoch: int) -> RunRecord:
    return dataclasses.replace(run, best=CheckpointRecord(epoch=epoch, step=0, metrics={"iou_mean": 0.5}))


def test_of_the_epoch_that_was_the_best(run: RunRecord) -> None:
    assert "`--epochs 16` and another `--name` may score higher" in said(best(run, 8))
    assert "highest after epoch 3 of 8, and the loss fell on" in said(best(run, 3))


def test_of_steps_without_an_update(run: RunRecord) -> None:
    assert run.summary is not None
    history = [{**each, "skipped_steps": 30} for each in run.summary["history"]]
    assert "30 steps had gradients that are not finite" in said(run, history=history)


def test_of_one_that_is_not_finished(tmp_path: Path) -> None:
    folder = write_run(tmp_path, finished=False)
    steps = next_steps(read_run(str(folder), folder.name))
    assert "its folder stands at the checkpoint checkpoint_epoch_0005" in steps[0]
    assert not any("predict.py" in step for step in steps)


def test_of_a_cross_validation(run: RunRecord) -> None:
    assert steps_after_folds({}, "runs/cv") == [
        "Folds are missing: the command that began it trains those, and keeps what is finished."
    ]
    cases = run.part("validation")
    assert cases is not None
    whole = {"out_of_fold": {}, "objective": "iou", "by_case": cases["by_case"], "bad_cases": {"X": "odd"}}
    text = "\n".join(steps_after_folds(whole, "my runs/cv"))
    assert "1 case could not be read (X)" in text and "Look at BraTS20_Training_003 first" in text
    assert "--checkpoint 'my runs/cv' --input" in text
