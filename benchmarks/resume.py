"""What a killed run loses: `kill -9` in mid-epoch, then the same again, beside a run left alone.

`python ray_jobs/benchmark.py resume`
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.end_to_end import synthetic_store
from benchmarks.report import report
from benchmarks.resume_worker import EPOCHS, STEPS
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from storage import InputError

SECONDS_BETWEEN_LOOKS = 0.02

Steps = list[tuple[int, float]]  # step and loss, as done


@dataclass(frozen=True, kw_only=True)
class ResumeBenchmark:
    """Kill a run in mid-epoch, go on, and compare it with the same run left alone."""

    every_steps: tuple[int, ...] = (1, 5, 20)
    """Steps between checkpoints: a row for each."""
    kill_at: int = 33
    """Step after which the run is killed."""
    json: Path | None = None
    """File for the figures."""


def run(config: ResumeBenchmark) -> None:
    """Measure what a run loses that is killed in mid-epoch and started again, beside a run left alone."""
    if not 1 <= config.kill_at < EPOCHS * STEPS:
        raise InputError(f"--kill-at wants a step from 1 to {EPOCHS * STEPS - 1}, got {config.kill_at}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        store = synthetic_store(folder).uri
        finish(start(folder, store, "alone", config.every_steps[0]))
        rows = [kill_and_resume(folder, store, every, config.kill_at) for every in config.every_steps]
    report(f"kill -9 in mid-epoch, {EPOCHS} epochs of {STEPS} steps", rows, config.json)


def kill_and_resume(folder: Path, store: str, every: int, kill_at: int) -> dict[str, Any]:
    """Return the row of a run with a checkpoint every so many steps."""
    name = f"killed-{every}"
    process = start(folder, store, name, every)
    while not any(step >= kill_at for steps in read_starts(folder / f"{name}.log") for step, _ in steps):
        if process.poll() is not None:
            raise InputError(f"the run ended before step {kill_at}, with status {process.returncode}")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finish(start(folder, store, name, every))
    first, second = read_starts(folder / f"{name}.log")
    (alone,) = read_starts(folder / "alone.log")
    wanted = dict(alone)
    times = Counter(step for step, _ in (*first, *second))
    return {
        "checkpoint every": f"{every} steps",
        "killed after step": first[-1][0],
        "goes on at step": second[0][0],
        "steps done twice": sum(count - 1 for count in times.values()),
        "steps left out": len(wanted.keys() - times.keys()),
        "losses that differ": sum(loss != wanted[step] for step, loss in (*first, *second)),
        "final weights": "equal" if weights(folder / name) == weights(folder / "alone") else "differ",
    }


def start(folder: Path, store: str, name: str, every: int) -> "subprocess.Popen[bytes]":
    """Start the run of that name, or go on with it."""
    words = [sys.executable, "-m", "benchmarks.resume_worker", store, str(folder / name), str(folder / f"{name}.log")]
    return subprocess.Popen([*words, str(every)])


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the end. Raises InputError where it is a bad one."""
    if process.wait() != 0:
        raise InputError(f"the run ended with status {process.returncode}")


def read_starts(log: Path) -> list[Steps]:
    """Return the steps of each start of a run; a line that is still being written is left out."""
    starts: list[Steps] = []
    for line in log.read_text().splitlines(keepends=True) if log.exists() else ():
        if line == "start\n":
            starts.append([])
        elif line.endswith("\n"):
            step, loss = line.split()
            starts[-1].append((int(step), float(loss)))
    return starts


def weights(run: Path) -> bytes:
    """Return the final weights, as the file has them."""
    store = CheckpointStore(str(run))
    newest = store.newest()
    assert newest is not None, f"{run} has a checkpoint"
    return store.open(newest).read("model.safetensors")
