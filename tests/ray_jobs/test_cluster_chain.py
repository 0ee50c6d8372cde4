"""The chain users type: a head on loopback, `ray job submit -- python ray_jobs/train.py`, and a search."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from storage import CohortStore

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def head(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A head with two CPUs and a token; yields the dashboard's address and the environment that knows the token."""
    dashboard = free_port()
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "NO_COLOR": "1",
    }
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as sockets:  # socket paths may not be long
        command = [*RAY, "start", "--head", "--block", "--port", str(free_port()), "--num-cpus", "2"]
        command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard), "--temp-dir", sockets]
        # The agent that starts jobs listens on a fixed port unless told; another cluster here may have it.
        command += ["--metrics-export-port", str(free_port()), "--dashboard-agent-listen-port", str(free_port())]
        command += ["--disable-usage-stats"]
        command += ["--object-store-memory", "200000000", "--resources", '{"tune_driver": 2}']
        with (tmp_path / "head.log").open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        try:
            wait_for_agent(f"http://127.0.0.1:{dashboard}", environment, process)
            yield f"http://127.0.0.1:{dashboard}", environment
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for_agent(address: str, environment: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    """Wait until the head takes jobs: its dashboard answers some seconds before that."""
    for _ in range(40):
        assert process.poll() is None, "the head ended early; see head.log"
        probe = [*RAY, "job", "submit", "--address", address, "--", "true"]
        if subprocess.run(probe, env=environment, capture_output=True, timeout=120).returncode == 0:
            return
        time.sleep(2)
    raise AssertionError("the head took no job")


def test_submitted_job_trains_on_the_store_of_the_environment(
    head: tuple[str, dict[str, str]], tmp_path: Path, phantom_store: CohortStore, small_arguments: Sequence[str]
) -> None:
    address, environment = head
    variables = {"BRATS_STORE": phantom_store.uri, "BRATS_RUNS": str(tmp_path / "runs"), "BRATS_WORKERS": "2"}
    runtime = json.dumps({"env_vars": variables})
    submit = [*RAY, "job", "submit", "--address", address, "--runtime-env-json", runtime]
    done = subprocess.run(
        [*submit, "--", "python", "ray_jobs/train.py", "--name", "job", *small_arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "runs" / "job" / "summary.json").read_text())
    assert summary["store"] == phantom_store.uri
    assert summary["throughput"]["world_size"] == 2
    refused = subprocess.run(
        [*submit, "--", "true"],
        env=environment | {"RAY_AUTH_TOKEN": secrets.token_hex(32)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert refused.returncode != 0


def test_search_tries_two_learning_rates(
    tmp_path: Path, phantom_store: CohortStore, small_arguments: Sequence[str], command
) -> None:
    arguments = ["--store", phantom_store.uri, "--name", "search", "--workers", "1", *small_arguments]
    done = command("tune.py", *arguments, "--learning-rates", "0.001", "0.01")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    trials = json.loads((tmp_path / "runs" / "search" / "results.json").read_text())["trials"]
    assert sorted(trial["learning_rate"] for trial in trials) == [0.001, 0.01]
    assert trials[0]["iou_mean"] >= trials[1]["iou_mean"]
    assert all({"threshold_WT", "iou_ET", "checkpoint_path"} <= trial.keys() for trial in trials)
