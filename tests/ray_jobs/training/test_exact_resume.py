"""A run whose worker is killed, whose driver is asked to end and whose driver is killed equals one left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from storage import CohortStore

LossesByStep = Callable[[Path], dict[int, set[float]]]

ROOT = Path(__file__).parents[3]
STEPS, EPOCHS = 48, 2
# A driver's workers live for two more seconds than it: with these patches that is less than half an epoch.
PATCH = ("--sampling.patch-shape", "48", "48", "48")
PATIENCE_SECONDS = 240


@pytest.fixture
def arguments(phantom_store: CohortStore, small_arguments: Sequence[str]) -> Sequence[str]:
    """Of both runs: two workers, a checkpoint every four steps."""
    return (
        *("--store", phantom_store.uri, *small_arguments, "--workers", "2", "--max-failures", "2"),
        *("--epochs", str(EPOCHS), "--sampling.patches-per-epoch", str(4 * STEPS), "--validation.every", "2"),
        *("--checkpoints.every-steps", "4", "--optimiser.ema-decay", "0.9", *PATCH),
    )


@pytest.fixture
def start(tmp_path: Path, arguments: Sequence[str]) -> Callable[[str], subprocess.Popen[str]]:
    """Start `python ray_jobs/train.py` for the run of that name, with a cluster of its own."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    variables = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    variables.pop("RAY_ADDRESS", None)

    def run(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "ray_jobs" / "train.py"), *arguments, "--name", name]
        return subprocess.Popen(
            command, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return run


def wait_for_step(run: Path, epoch: int, step: int, process: subprocess.Popen[str]) -> None:
    """Return when the run has saved a checkpoint at or after that step."""
    until = time.monotonic() + PATIENCE_SECONDS
    store = CheckpointStore(str(run))
    while time.monotonic() < until:
        newest = store.newest()
        if newest is not None and newest.position >= (epoch, step):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint at step {step} of epoch {epoch} within {PATIENCE_SECONDS} s")


def end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE_SECONDS)
    return output


@pytest.mark.system
@pytest.mark.timeout(1500)  # four starts; each wait in them has a limit of its own
@pytest.mark.usefixtures("on_shared_head")  # for the run that is left alone
def test_kills_change_nothing(
    start: Callable[[str], subprocess.Popen[str]],
    run_here: Callable[..., "subprocess.CompletedProcess[str]"],
    arguments: Sequence[str],
    training_workers: Callable[[int], list[psutil.Process]],
    losses_by_step: LossesByStep,
    tmp_path: Path,
) -> None:
    alone, killed = tmp_path / "runs" / "alone", tmp_path / "runs" / "killed"
    done = run_here("train.py", *arguments, "--name", "alone")
    assert done.returncode == 0, done.stdout + done.stderr

    chance = random.Random()
    steps = [*sorted(chance.sample(range(4, STEPS // 2), 2)), chance.randrange(4, STEPS // 6)]

    process = start("killed")
    wait_for_step(killed, 0, steps[0], process)
    workers = training_workers(process.pid)
    assert len(workers) == 2
    chance.choice(workers).send_signal(signal.SIGKILL)  # Ray starts both again, and they go on

    wait_for_step(killed, 0, steps[1] + 5, process)  # later than where the first start was
    process.send_signal(signal.SIGTERM)
    output = end(process)
    assert process.returncode == 143, output
    assert "the same command goes on from there" in output

    process = start("killed")
    wait_for_step(killed, 1, steps[2], process)
    process.kill()
    process.communicate()

    process = start("killed")
    output = end(process)
    assert process.returncode == 0, output
    assert "going on from checkpoint_epoch_0001_step_" in output

    first, second = (json.loads((run / "summary.json").read_text()) for run in (alone, killed))
    assert second["validation"] == first["validation"]
    assert [figures["loss"] for figures in second["history"]] == [figures["loss"] for figures in first["history"]]
    weights = "checkpoint_epoch_0002/model.safetensors"
    assert (killed / weights).read_bytes() == (alone / weights).read_bytes()
    # A step that was done again after a kill gave the same loss again: one value for each step.
    assert {step: len(values) for step, values in losses_by_step(killed).items()} == dict.fromkeys(
        range(1, EPOCHS * STEPS + 1), 1
    )
    assert losses_by_step(killed) == losses_by_step(alone)
