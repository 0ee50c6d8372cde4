"""Cohorts that several packages' tests read. Nobody may write into them."""

import dataclasses
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

# Ray reads these when it is first imported. Tests never touch the user's own token or start an open cluster.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = "tests-only-0123456789abcdef0123456789abcdef"
os.environ.pop("RAY_ADDRESS", None)
for name in ("PRESET", "WORKERS", "STORE", "RUNS"):
    os.environ.pop(f"BRATS_{name}", None)

ROOT = Path(__file__).parents[1]
REAL_CASES = Path(__file__).parents[2] / "shared" / "data" / "brats2018"


@pytest.fixture(scope="session")
def phantom_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six synthetic cases as BraTS 2020 NIfTI files."""
    from storage.scans.phantom import write_phantom_cohort

    return write_phantom_cohort(tmp_path_factory.mktemp("phantom"), cases=6, seed=1)


@pytest.fixture(scope="session")
def real_cases() -> Path:
    """The folder of real BraTS 2018 cases beside the project."""
    if not REAL_CASES.is_dir():
        pytest.skip(f"the real cases are not at {REAL_CASES}")
    return REAL_CASES


@dataclasses.dataclass(frozen=True)
class Head:
    """A running head: the dashboard's address, the environment that knows its token, its folder."""

    address: str
    environment: dict[str, str]
    folder: Path


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Find a port that nobody has."""
    from ray_jobs.on_ray.ray_start import find_free_port

    return find_free_port


@pytest.fixture
def start_head(tmp_path: Path) -> Iterator[Callable[..., Head]]:
    """Start a head with two CPUs and a token, on loopback; it ends with the test."""
    with ExitStack() as stack:

        def start(more: Mapping[str, str] | None = None) -> Head:
            return stack.enter_context(running_head(tmp_path, more or {}))

        yield start


@contextmanager
def running_head(tmp_path: Path, more: Mapping[str, str]) -> Iterator[Head]:
    from ray_jobs.on_ray.ray_start import find_free_port

    dashboard = find_free_port()
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
        **more,
    }
    # Socket paths may not be long; a file that Ray's dashboard writes while it ends may keep the folder.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "2"]
        command += [
            "--port",
            str(find_free_port()),
            "--dashboard-host",
            "127.0.0.1",
            "--dashboard-port",
            str(dashboard),
        ]
        # The agent that starts jobs listens on a fixed port unless told; another cluster here may have it.
        command += [
            "--metrics-export-port",
            str(find_free_port()),
            "--dashboard-agent-listen-port",
            str(find_free_port()),
        ]
        command += ["--disable-usage-stats", "--temp-dir", sockets]
        command += ["--object-store-memory", "200000000", "--resources", '{"tune_driver": 2}']
        with (tmp_path / "head.log").open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
            )
        try:
            wait_for_agent(f"http://127.0.0.1:{dashboard}", environment, process)
            yield Head(f"http://127.0.0.1:{dashboard}", environment, Path(sockets))
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
        probe = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address, "--", "true"]
        with suppress(subprocess.TimeoutExpired):  # submitted before the agent could take it: it hears of no end
            if subprocess.run(probe, env=environment, capture_output=True, timeout=60).returncode == 0:
                return
        time.sleep(2)
    raise AssertionError("the head took no job")
