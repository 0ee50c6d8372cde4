"""What commit 55c76e5, the last before ray_jobs and storage had rooms, made of synthetic voxels opens and goes on.

data/made_at_55c76e5.tar.gz holds a store of six cases of 24³ voxels, a run that SIGTERM stopped after one step of its
third epoch, and a search that was cut off in its second trial of three. They were made there by these commands:

    convert.py --source CASES --store store
    train.py --store store --name half --epochs 3 --checkpoints.every-steps 1 SMALL
    tune.py --store store --name search --trials 3 --max-concurrent 1 --search-seed 1 --epochs 5 SMALL
"""

import json
import pickle
import tarfile
from pathlib import Path

import pytest
import torch

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.searching.scheduler import read_reports
from storage import open_store

MADE = Path(__file__).parent / "data" / "made_at_55c76e5.tar.gz"
SMALL = (
    *("--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "12", "--workers", "1"),
    *("--model.widths", "4", "8", "--model.deep-supervision", "0", "--optimiser.warmup-steps", "1"),
    *("--validation.overlap", "0", "--validation.window-batch", "16", "--precision", "float32"),
    *("--optimiser.learning-rate", "3e-3"),  # the demo's at that commit: a run keeps what it began with
)
# Tune's pickles hold the folder of the search; a path as long can stand in its place.
WAS_AT = b"/tmp/" + 155 * b"p" + b"/runs"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder, with a path as long as that of the search's first start, that holds what the commit made."""
    length = len(WAS_AT) - len("/runs") - len(str(tmp_path)) - 1
    assert length > 0, f"{tmp_path} is too long for this test"
    folder = tmp_path / (length * "x")
    with tarfile.open(MADE) as archive:
        archive.extractall(folder, filter="data")
    tuner = folder / "runs" / "search" / "tuner.pkl"
    assert WAS_AT in tuner.read_bytes()
    tuner.write_bytes(tuner.read_bytes().replace(WAS_AT, f"{folder}/runs".encode()))
    return folder


def test_they_are_small() -> None:
    assert MADE.stat().st_size < 1_000_000


def test_a_store_opens(made: Path) -> None:
    store = open_store(made / "store")
    assert len(store.case_ids) == 6
    for case_id in store.case_ids:  # each chunk against its checksum, each array against its digest
        image_MDHW, label_DHW = store.read_case(case_id)
        assert image_MDHW.shape[0] == 4 and label_DHW is not None and {*label_DHW.flat} == {0, 1, 2, 3}


def test_a_checkpoint_predicts(made: Path) -> None:
    network = open_trained(str(made / "runs" / "half"), torch.device("cpu"))
    decision = network.decision
    assert network.config.epochs == 3 and decision is not None and len(decision.thresholds) == 3
    assert not (any(decision.smallest) or any(decision.empty_below) or decision.largest_tumour_only)
    probabilities_RDHW = network.evaluator().probabilities(torch.randn(4, 16, 16, 16))
    assert probabilities_RDHW.shape == (3, 16, 16, 16) and probabilities_RDHW.isfinite().all()


@pytest.mark.system  # started again for minutes
@pytest.mark.usefixtures("on_shared_head")
def test_a_half_finished_run_goes_on(made: Path, run_here) -> None:
    arguments = ["--store", str(made / "store"), "--runs", str(made / "runs"), "--name", "half", "--epochs", "3"]
    done = run_here("train.py", *arguments, "--checkpoints.every-steps", "1", *SMALL)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((made / "runs" / "half" / "summary.json").read_text())
    assert [row["epoch"] for row in summary["history"]] == [1, 2, 3]
    # The third epoch had one step of three behind it.
    assert "epoch 3: validation IoU" in done.stdout and "epoch 2: validation IoU" not in done.stdout


@pytest.mark.system  # started again for minutes
def test_a_half_finished_search_goes_on(made: Path, command) -> None:
    search = made / "runs" / "search"
    assert b"ray_jobs.search_scheduler" in (search / "tuner.pkl").read_bytes()
    with pytest.raises(ModuleNotFoundError, match="search_scheduler"):
        pickle.loads(b"cray_jobs.search_scheduler\nRememberingASHA\n.")
    folder = RunFolder(str(made / "runs"), "search")
    first = read_reports(folder)
    arguments = ["--store", str(made / "store"), "--runs", str(made / "runs"), "--name", "search", "--resume"]
    arguments += ["--trials", "3", "--max-concurrent", "1", "--search-seed", "1", "--epochs", "5"]
    done = command("tune.py", *arguments, *SMALL, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(json.loads((search / "results.json").read_text())["trials"]) == 3
    reports = read_reports(folder)
    assert all(reports[trial_id][: len(own)] == own for trial_id, own in first.items())
    assert len(first) == 1 and len(reports) == 3
