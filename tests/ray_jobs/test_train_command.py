"""`python ray_jobs/train.py` as a user types it, whole; what it refuses, in this process."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage import CohortStore


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")  # for the second and the third start, which train nothing
def test_train_from_nifti_then_again(
    phantom_source: Path, tmp_path: Path, command, run_here, small_arguments: Sequence[str]
) -> None:
    arguments = ["--source", str(phantom_source), "--name", "one", *small_arguments, "--by-memory", "micro_batch_size"]
    first = command("train.py", *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "Traceback" not in first.stderr
    run = tmp_path / "runs" / "one"
    summary = json.loads((run / "summary.json").read_text())
    assert {"run", "store", "config", "git_commit", "validation", "test", "throughput", "checkpoint"} <= summary.keys()
    assert {"patches_per_second", "data_wait_fraction", "world_size", "device", "precision"} == set(
        summary["throughput"]
    )
    assert summary["throughput"]["world_size"] == 2
    assert (Path(summary["checkpoint"]) / "model.safetensors").is_file()
    assert list(run.glob("events.out.tfevents*"))
    assert list(run.glob("cross_section_*.png"))
    assert f"TensorBoard: tensorboard --logdir {tmp_path / 'runs'}, then" in first.stdout
    page = (run / "report.html").read_text()
    assert f"Finished at {summary['finished']}" in page and "is not up to date" not in first.stdout
    assert "validation IoU" in first.stdout
    assert "no GPU, so memory settles nothing: patches of 16 x 16 x 16, 2 at once, activations kept" in first.stdout
    store = Path(summary["store"])
    before = {file: file.stat().st_mtime_ns for file in (store / "cases").rglob("*")}

    again = run_here("train.py", *arguments)
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in (store / "cases").rglob("*")} == before

    other = run_here("train.py", *arguments, "--optimiser.learning-rate", "0.1")
    assert other.returncode == 2
    assert "optimiser.learning_rate" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "nowhere"], "nowhere"),
        (["--source", "empty"], "empty"),
        (["--source", "partial"], "partial"),
        (["--store", "empty"], "empty"),
        pytest.param(["--workers", "64"], "--workers 64", marks=pytest.mark.processes),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str], says: str, tmp_path: Path, phantom_source: Path, run_here
) -> None:
    (tmp_path / "empty").mkdir()
    partial = tmp_path / "partial" / "BraTS20_Training_001"
    partial.mkdir(parents=True)
    for name in ("flair", "t1"):
        file = f"BraTS20_Training_001_{name}.nii.gz"
        (partial / file).symlink_to(phantom_source / "BraTS20_Training_001" / file)
    before = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    done = run_here("train.py", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    after = {path for path in tmp_path.rglob("*") if "home" not in path.parts}
    assert after == before


def test_too_few_cases_to_split(tmp_path: Path, phantom_source: Path, run_here) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for number in (1, 2):
        case_id = f"BraTS20_Training_{number:03d}"
        (few / case_id).symlink_to(phantom_source / case_id)
    done = run_here("train.py", "--source", "few")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "at least 3 labelled subjects" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "home"]


@pytest.mark.system  # a run whose workers fail
@pytest.mark.usefixtures("on_shared_head")
def test_a_workers_user_error_is_one_line(tmp_path: Path, phantom_store: CohortStore, run_here) -> None:
    done = run_here("train.py", "--store", phantom_store.uri, "--cache-gb", "0.001", "--max-failures", "0")
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: wanted a cache of at least")
    assert "Traceback" not in done.stderr
