"""A worker that stops answering, without dying: the other says so, Ray starts both again, and the run ends well."""

import json
import os
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

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 240


@pytest.mark.system
def test_a_worker_that_is_stopped_is_replaced(
    tmp_path: Path,
    phantom_store: CohortStore,
    small_arguments: Sequence[str],
    training_workers: Callable[[int], list[psutil.Process]],
) -> None:
    (tmp_path / "home").mkdir()
    variables = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        # What Ray allows a worker that does not answer before it kills it, 30 s else.
        "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "3",
    }
    arguments = [
        *("--store", phantom_store.uri, *small_arguments, "--workers", "2", "--max-failures", "1", "--name", "stuck"),
        *("--epochs", "1", "--sampling.patches-per-epoch", "600", "--checkpoints.every-steps", "4"),
        *("--parallel.timeout", "15"),
    ]
    log = tmp_path / "log"
    with log.open("w") as output:
        command = [sys.executable, str(ROOT / "ray_jobs" / "train.py"), *arguments]
        process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=output, stderr=output)
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while CheckpointStore(str(tmp_path / "runs" / "stuck")).newest() is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        workers = training_workers(process.pid)
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGSTOP)
        assert process.wait(PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    summary = json.loads((tmp_path / "runs" / "stuck" / "summary.json").read_text())
    assert summary["throughput"]["world_size"] == 2
    said = log.read_text()
    # Long lines are wrapped where the progress bar is shown.
    words = " ".join(said.split())
    assert "no answer from the other ranks after" in words, said
    assert "(--parallel.timeout 15)" in words, said
    assert "going on from checkpoint_epoch_0000_step_" in words, said
