"""Two hosts, as network namespaces of this machine: training across them, and folders that only one of them sees."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ray_jobs.conversion import convert_cohort
from storage import open_store

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
NETWORK = "10.231.77"
SMALL = (
    *("--epochs", "1", "--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "8"),
    *("--model.widths", "4", "8", "--model.deep-supervision", "0", "--validation.overlap", "0"),
)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def network() -> Iterator[list[str]]:
    """Two namespaces on one bridge; their names, the first with address .1 and the second with .2."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces want root")
    bridge, hosts = f"bs{os.getpid()}", [f"bs{os.getpid()}-{number}" for number in (1, 2)]
    ip("link", "add", bridge, "type", "bridge")
    ip("link", "set", bridge, "up")
    try:
        for number, host in enumerate(hosts, start=1):
            ip("netns", "add", host)
            ip("link", "add", f"{bridge}v{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", f"{bridge}v{number}", "master", bridge, "up")
            ip("-n", host, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)
        ip("link", "del", bridge)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, phantom_source: Path) -> tuple[Path, Path]:
    """A folder both hosts see, with the phantom's store in it, and a copy that only the first host sees."""
    shared, private = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("private")
    convert_cohort(phantom_source, str(shared / "phantom.zarr"))
    shutil.copytree(shared / "phantom.zarr", private / "phantom.zarr")
    return shared, private


@pytest.fixture(scope="module")
def cluster(network: list[str], folders: tuple[Path, Path]) -> Iterator[Run]:
    """A cluster of one CPU on each host; call it to run a command on the first, as a job of the cluster would."""
    shared, private = folders
    environment = {
        **os.environ,
        "HOME": str(shared),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "GLOO_SOCKET_IFNAME": "eth0",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }
    nodes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="rh-", dir="/tmp") as scratch:
        starts = [
            ["--head", "--port", "6379", "--dashboard-host", "127.0.0.1"],
            ["--address", f"{NETWORK}.1:6379"],
        ]
        hide = f"mount -t tmpfs none {private}"
        for number, (host, start) in enumerate(zip(network, starts, strict=True), start=1):
            node = [*RAY, "start", *start, "--block", "--node-ip-address", f"{NETWORK}.{number}", "--num-cpus", "1"]
            node += ["--object-store-memory", "120000000", "--temp-dir", f"{scratch}/{number}"]
            script = f'{hide if number == 2 else "true"} && exec "$@"'
            command = ["ip", "netns", "exec", host, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
            command += ["--mount-proc", "sh", "-c", script, "sh", *node]
            with (shared / f"node-{number}.log").open("w") as log:
                nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
            time.sleep(8 if number == 1 else 0)  # the second host joins a head that listens

        def run(script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
            path = str(ROOT / "ray_jobs" / script)
            command = ["ip", "netns", "exec", network[0], sys.executable, path, *arguments]
            variables = environment | {"RAY_ADDRESS": f"{NETWORK}.1:6379"}
            return subprocess.run(command, env=variables, cwd=shared, capture_output=True, text=True, timeout=400)

        try:
            wait_for_two_nodes(network[0], environment)
            yield run
        finally:
            for node in reversed(nodes):
                os.killpg(node.pid, signal.SIGTERM)
            for node in nodes:
                try:
                    node.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(node.pid, signal.SIGKILL)
                    node.wait()


def wait_for_two_nodes(host: str, environment: dict[str, str]) -> None:
    count = "import ray; ray.init(logging_level='ERROR'); print(sum(n['Alive'] for n in ray.nodes()))"
    for _ in range(12):
        command = ["ip", "netns", "exec", host, sys.executable, "-c", count]
        variables = environment | {"RAY_ADDRESS": f"{NETWORK}.1:6379"}
        found = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
        if found.stdout.strip().endswith("2"):
            return
        time.sleep(2)
    raise AssertionError(f"the second host did not join: {found.stdout} {found.stderr[-500:]}")


def test_cases_are_converted_on_both_hosts(cluster: Run, folders: tuple[Path, Path], phantom_source: Path) -> None:
    shared, private = folders
    done = cluster("convert.py", "--source", str(phantom_source), "--store", str(shared / "converted.zarr"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert open_store(shared / "converted.zarr").digest == open_store(shared / "phantom.zarr").digest

    shutil.copytree(phantom_source, private / "scans")
    refused = cluster("convert.py", "--source", str(private / "scans"), "--store", str(shared / "other.zarr"))
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1


def test_training_runs_across_both_hosts(cluster: Run, folders: tuple[Path, Path]) -> None:
    shared, _ = folders
    arguments = ["--store", str(shared / "phantom.zarr"), "--runs", str(shared / "runs"), "--name", "both"]
    done = cluster("train.py", *arguments, "--workers", "2", *SMALL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads((shared / "runs" / "both" / "summary.json").read_text())
    assert summary["throughput"]["world_size"] == 2


@pytest.mark.parametrize("hidden", ["store", "run folder"])
def test_a_folder_that_one_host_does_not_see_is_refused(hidden: str, cluster: Run, folders: tuple[Path, Path]) -> None:
    shared, private = folders
    store, runs = (private, shared) if hidden == "store" else (shared, private)
    done = cluster(
        "train.py", "--store", str(store / "phantom.zarr"), "--runs", str(runs / "runs"), "--name", "hidden", *SMALL
    )
    assert done.returncode == 2
    assert hidden in done.stderr
    assert "cannot see" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (runs / "runs" / "hidden").exists()
