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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.on_ray.conversion import convert_cohort
from storage import open_store

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
# Says how many hosts there are, at each line that comes in.
COUNT = """
import ray, sys
ray.init(logging_level="ERROR", log_to_driver=False)
for _ in sys.stdin:
    print("hosts", sum(node["Alive"] for node in ray.nodes()), flush=True)
"""
NETWORK = "10.231.77"
PATIENCE_SECONDS = 240
SMALL = (
    *("--epochs", "1", "--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "8"),
    *("--model.widths", "4", "8", "--model.deep-supervision", "0", "--validation.overlap", "0"),
)


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


class Cluster:
    """Ray with one CPU on each host, the first being the head. Call it to run a command there, as a job would be."""

    def __init__(self, network: list[str], shared: Path, private: Path, scratch: Path) -> None:
        self._network, self._shared, self._private, self._scratch = network, shared, private, scratch
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._counting: subprocess.Popen[str] | None = None
        self._environment = {
            **os.environ,
            "HOME": str(shared),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": "eth0",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "160",
        }

    def start(self, number: int) -> None:
        """Start host 1 or 2, which does not see the private folder."""
        first = ["--head", "--port", "6379", "--dashboard-host", "127.0.0.1"]
        node = [*RAY, "start", *(first if number == 1 else ["--address", f"{NETWORK}.1:6379"])]
        node += ["--block", "--node-ip-address", f"{NETWORK}.{number}", "--num-cpus", "1"]
        node += ["--object-store-memory", "120000000", "--temp-dir", tempfile.mkdtemp(dir=self._scratch)]
        hide = f"mount -t tmpfs none {self._private}" if number == 2 else "true"
        command = ["ip", "netns", "exec", self._network[number - 1], "unshare", "--mount", "--uts", "--pid", "--fork"]
        command += ["--kill-child", "--mount-proc", "sh", "-c", f'{hide} && exec "$@"', "sh", *node]
        with (self._shared / f"node-{number}.log").open("a") as log:
            self._nodes[number] = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def lose(self, number: int) -> None:
        """Kill every process of a host at once."""
        node = self._nodes.pop(number)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        """Shut down what runs, the head last."""
        if self._counting is not None:
            self._counting.kill()
            self._counting.communicate()
        for number in sorted(self._nodes, reverse=True):
            os.killpg(self._nodes[number].pid, signal.SIGTERM)
        for node in self._nodes.values():
            try:
                node.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """Start a Python command on the first host."""
        whole = ["ip", "netns", "exec", self._network[0], sys.executable, *command]
        variables = self._environment | {"RAY_ADDRESS": f"{NETWORK}.1:6379"}
        pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(whole, env=variables, cwd=self._shared, text=True, **pipes)

    def __call__(self, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        process = self.begin(str(ROOT / "ray_jobs" / script), *arguments)
        stdout, stderr = process.communicate(timeout=400)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def wait_for_nodes(self, number: int) -> None:
        """Return when as many hosts are in the cluster."""
        until = time.monotonic() + PATIENCE_SECONDS
        while (found := self._count()) != number:
            assert time.monotonic() < until, f"{number} hosts: found {found}"
            time.sleep(0.2)

    def _count(self) -> int:
        """Ask a process on the first host, one for all questions: to import Ray takes longer than to answer them."""
        if self._counting is None:
            log = self._shared / "node-1.log"
            until = time.monotonic() + PATIENCE_SECONDS
            while "Ray runtime started" not in log.read_text():  # what joins the head finds it listening
                assert time.monotonic() < until and self._nodes[1].poll() is None, log.read_text()
                time.sleep(0.05)
            self._counting = self.begin("-c", COUNT)
        asked, answers = self._counting.stdin, self._counting.stdout
        assert asked is not None and answers is not None
        asked.write("\n")
        asked.flush()
        for answer in answers:
            if answer.startswith("hosts "):  # else Ray's word about a node that was lost
                return int(answer.split()[1])
        raise AssertionError(self._counting.communicate()[1])


@pytest.fixture(scope="module")
def cluster(network: list[str], folders: tuple[Path, Path]) -> Iterator[Cluster]:
    """A cluster on both hosts."""
    with tempfile.TemporaryDirectory(prefix="rh-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        cluster = Cluster(network, *folders, Path(scratch))
        try:
            cluster.start(1)
            cluster.wait_for_nodes(1)  # the second host joins a head that listens
            cluster.start(2)
            cluster.wait_for_nodes(2)
            yield cluster
        finally:
            cluster.stop()


def test_cases_are_converted_on_both_hosts(cluster: Cluster, folders: tuple[Path, Path], phantom_source: Path) -> None:
    shared, private = folders
    done = cluster("convert.py", "--source", str(phantom_source), "--store", str(shared / "converted.zarr"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert open_store(shared / "converted.zarr").digest == open_store(shared / "phantom.zarr").digest

    shutil.copytree(phantom_source, private / "scans")
    refused = cluster("convert.py", "--source", str(private / "scans"), "--store", str(shared / "other.zarr"))
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1


def test_training_runs_across_both_hosts(cluster: Cluster, folders: tuple[Path, Path]) -> None:
    shared, _ = folders
    arguments = ["--store", str(shared / "phantom.zarr"), "--runs", str(shared / "runs"), "--name", "both"]
    done = cluster("train.py", *arguments, "--workers", "2", *SMALL)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads((shared / "runs" / "both" / "summary.json").read_text())
    assert summary["throughput"]["world_size"] == 2


@pytest.mark.parametrize("hidden", ["store", "run folder"])
def test_a_folder_that_one_host_does_not_see_is_refused(
    hidden: str, cluster: Cluster, folders: tuple[Path, Path]
) -> None:
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


@pytest.mark.parametrize("hidden", ["store", "run folder"])
def test_a_folder_that_a_host_which_comes_later_does_not_see_is_refused(
    hidden: str, cluster: Cluster, folders: tuple[Path, Path]
) -> None:
    """As on a cluster that starts from zero: the run is decided, and waits, while there is only the head."""
    shared, private = folders
    store, runs = (private, shared) if hidden == "store" else (shared, private)
    cluster.lose(2)
    cluster.wait_for_nodes(1)
    places = ["--store", str(store / "phantom.zarr"), "--runs", str(runs / "runs"), "--name", f"later-{hidden[:3]}"]
    process = cluster.begin(str(ROOT / "ray_jobs" / "train.py"), *places, "--workers", "2", *SMALL)
    assert process.stdout is not None
    assert any("2 workers" in line for line in process.stdout)  # then it is decided; before, where to look is said
    cluster.start(2)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 2, stdout[-2000:] + stderr[-2000:]
    said = stderr.strip().splitlines()[-1]
    assert said.startswith(f"error: {hidden} ")
    assert said.endswith(
        "is a local path that 1 of 2 workers cannot see; give an s3:// URL or a folder that all nodes share"
    )
    assert "Traceback" not in stderr
    cluster.wait_for_nodes(2)


def test_a_host_that_dies_is_replaced_and_training_goes_on(cluster: Cluster, folders: tuple[Path, Path]) -> None:
    """The run waits for another host and goes on from its newest checkpoint."""
    shared, _ = folders
    arguments = ["--store", str(shared / "phantom.zarr"), "--runs", str(shared / "runs"), "--name", "survivor"]
    steps = ["--sampling.patches-per-epoch", "1200", "--checkpoints.every-steps", "5"]
    process = cluster.begin(str(ROOT / "ray_jobs" / "train.py"), *arguments, "--workers", "2", *SMALL, *steps)
    store = CheckpointStore(str(shared / "runs" / "survivor"))
    until = time.monotonic() + 200
    while store.newest() is None:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    cluster.lose(2)
    cluster.start(2)
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stdout[-2000:] + stderr[-2000:]
    assert "going on from checkpoint_epoch_0000_step_" in stdout
    summary = json.loads((shared / "runs" / "survivor" / "summary.json").read_text())
    assert summary["throughput"]["world_size"] == 2
