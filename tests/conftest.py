"""Cohorts, a bucket and a cluster that several packages' tests share.

Nobody may write into the cohorts, or kill what is not theirs.

A test that starts Ray or another process is marked `processes`, for `make check` to leave it out; see `note`.
"""

import dataclasses
import functools
import http.client
import json
import multiprocessing.util
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

# Ray reads these when it is first imported. Tests never touch the user's own token or start an open cluster.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = "tests-only-0123456789abcdef0123456789abcdef"
os.environ.pop("RAY_ADDRESS", None)
for name in ("PRESET", "WORKERS", "STORE", "RUNS"):
    os.environ.pop(f"BRATS_{name}", None)

ROOT = Path(__file__).parents[1]
BUCKET = "brats"
REAL_CASES = Path(__file__).parents[2] / "shared" / "data" / "brats2018"

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
started: list[str] = []  # by the test at hand, and by fixtures that were set up for it


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Write down what starts a process, wherever it is called from."""
    if event in STARTS:
        started.append(f"{event}: {arguments[0] if arguments else ''}")


def noted(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`call`, written down."""

    @functools.wraps(call)
    def noting(*arguments: Any, **named: Any) -> Any:
        started.append(name)
        return call(*arguments, **named)

    return noting


# Python tells of all processes but those that multiprocessing spawns.
sys.addaudithook(note)
multiprocessing.util.spawnv_passfds = noted(multiprocessing.util.spawnv_passfds, "multiprocessing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that several processes (`--dist loadfile`) end at about the same time.

    Those with a limit of their own, those that want a head, those that start processes; then all others.
    """
    places: dict[Path, tuple[float, bool, bool]] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        needs_head = "shared_head" in getattr(item, "fixturenames", ())
        own = (-limit.args[0] if limit else 0, not needs_head, item.get_closest_marker("processes") is None)
        places[item.path] = min(own, places.get(item.path, own))
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish() -> None:
    """Joining a cluster that runs, or other ranks, starts no process. Both are imported by now where they are used."""
    for module, call in (("ray", "init"), ("torch.distributed", "init_process_group")):
        if module in sys.modules:
            setattr(sys.modules[module], call, noted(getattr(sys.modules[module], call), f"{module}.{call}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield
    if started and not any(item.get_closest_marker(name) for name in ("processes", "system")):
        pytest.fail(f"started {', '.join(dict.fromkeys(started))}: mark the test with pytest.mark.processes")


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
    """A running head: where Ray and its dashboard are, the environment that knows its token, its folder."""

    ray: str
    address: str
    environment: dict[str, str]
    folder: Path

    def ask(self, path: str, body: object = None) -> Any:
        """What the dashboard answers, to a POST if there is a body."""
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}{path}", data, headers)) as answer:
            return json.load(answer)

    def wait_for_jobs(self) -> None:
        """Return when a job has run to its end: the dashboard answers some seconds before its agent takes jobs."""
        job = wait_for(lambda: self._submit(), "the head took no job")
        wait_for(lambda: self.ask(f"/api/jobs/{job}")["status"] == "SUCCEEDED", "the first job came to no end")

    def _submit(self) -> str | None:
        with suppress(OSError):  # no agent yet
            return str(self.ask("/api/jobs/", {"entrypoint": "true"})["submission_id"])
        return None


def wait_for(condition: Callable[[], Any], otherwise: str, *, seconds: float = 240) -> Any:
    """Return what `condition` gives once that is true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, otherwise
        time.sleep(0.05)
    return found


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Find a port that nobody has."""
    from ray_jobs.on_ray.ray_start import find_free_port

    return find_free_port


@pytest.fixture
def start_head(tmp_path: Path) -> Iterator[Callable[..., Head]]:
    """Start a head with two CPUs on loopback, whose processes have the variables given; it ends with the test."""
    with ExitStack() as stack:
        yield lambda more: stack.enter_context(running_head(tmp_path, more))


@pytest.fixture(scope="session")
def shared_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A head for all tests of this process that want a cluster and no particular one: starting one takes long."""
    with running_head(tmp_path_factory.mktemp("head"), {}) as head:
        yield head


@contextmanager
def running_head(folder: Path, more: Mapping[str, str]) -> Iterator[Head]:
    from ray_jobs.on_ray.ray_start import find_free_port

    port, dashboard = find_free_port(), find_free_port()
    address = f"127.0.0.1:{port}"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "NO_COLOR": "1",
        "RAY_ADDRESS": address,  # for its workers: Ray Train's helpers ask for "the" cluster of a machine
        **more,
    }
    # Socket paths may not be long; a file that Ray's dashboard writes while it ends may keep the folder.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus", "2"]
        command += ["--node-ip-address", "127.0.0.1", "--port", str(port)]
        command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)]
        # The agent that starts jobs listens on a fixed port unless told; another cluster here may have it.
        command += [
            "--metrics-export-port",
            str(find_free_port()),
            "--dashboard-agent-listen-port",
            str(find_free_port()),
        ]
        command += ["--disable-usage-stats", "--temp-dir", sockets]
        command += ["--object-store-memory", "200000000", "--resources", '{"tune_driver": 8}']
        log = folder / "head.log"
        processes = [start_logged(command, environment, log)]

        def runs() -> bool:
            if processes[-1].poll() is not None:
                # Ray gives a node's processes 30 s, whatever else the machine does.
                assert "timed out during startup" in log.read_text() and len(processes) < 4, log.read_text()
                processes.append(start_logged(command, environment, log))
            return "Ray runtime started" in log.read_text()

        try:
            wait_for(runs, "the head did not start")
            yield Head(address, f"http://127.0.0.1:{dashboard}", environment, Path(sockets))
        finally:
            process = processes[-1]
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def start_logged(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, from the repository's root; `log` is written anew."""
    with log.open("w") as output:
        return subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, cwd=ROOT, start_new_session=True
        )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A real S3 endpoint over HTTP on loopback."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is a development dependency")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket's URL, with the environment that a user would set."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    request(endpoint, "POST", "/moto-api/reset")
    request(endpoint, "PUT", f"/{BUCKET}")
    return f"s3://{BUCKET}/cohort"


def request(endpoint: str, method: str, path: str) -> None:
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=30)
    connection.request(method, path, headers={"Content-Length": "0"})
    assert connection.getresponse().status in (200, 204)
    connection.close()
