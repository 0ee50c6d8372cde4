"""The watcher drains a node of a real cluster of two, and Ray says so."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.state import state
from ray.cluster_utils import Cluster

from ray_jobs.on_ray.draining import DrainError, RayNode, drain, find_node
from storage import InputError

# Ray's own: it starts nodes with sockets that it leaves to the garbage collector.
pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

WATCHER = Path(__file__).parents[3] / "ray_jobs" / "spot_watcher.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_the_only_node_of_a_machine_is_found_and_a_second_one_must_be_named(cluster: Cluster) -> None:
    (head,) = ray.nodes()
    assert find_node(cluster.address) == RayNode(address=cluster.address, node_id=head["NodeID"])
    worker = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    with pytest.raises(InputError, match=r"wanted one Ray node on this machine .* give --node-id"):
        find_node(cluster.address)
    assert find_node(cluster.address, worker.node_id).node_id == worker.node_id
    with pytest.raises(InputError, match=r"wanted the node 0123 in the cluster at .*, found none"):
        find_node(cluster.address, "0123")


def test_a_notice_drains_the_node_and_nothing_is_placed_there_any_more(cluster: Cluster, fake_metadata: Any) -> None:
    worker = cluster.add_node(num_cpus=1, resources={"spot": 2})
    cluster.wait_for_nodes()
    work = ray.remote(num_cpus=0, resources={"spot": 1})(Work).remote()
    assert ray.get(work.ping.remote()) == "alive"  # an idle node would end as soon as it is drained
    gone = datetime.now(UTC) + timedelta(seconds=110)
    arguments = ["--address", cluster.address, "--node-id", worker.node_id, "--metadata-url", fake_metadata.url]
    watcher = subprocess.Popen(
        [sys.executable, str(WATCHER), *arguments, "--every-seconds", "0.2"],
        env={**os.environ},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(fake_metadata.asked) > 4)
    assert state.get_draining_nodes() == {}
    fake_metadata.give_notice(f'{{"action": "terminate", "time": "{gone.strftime("%Y-%m-%dT%H:%M:%SZ")}"}}')
    _, log = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, log
    assert "spot interruption: terminate at 20" in log
    wait_until(state.get_draining_nodes)
    ((node_id, deadline_ms),) = state.get_draining_nodes().items()
    assert node_id == worker.node_id
    assert abs(deadline_ms / 1000 - gone.timestamp()) < 3
    assert ray.get(work.ping.remote()) == "alive"
    placed = ray.remote(num_cpus=0, resources={"spot": 1})(answer).remote()
    assert ray.wait([placed], timeout=3)[0] == []


def test_a_cluster_that_fails_or_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    node = RayNode(address="127.0.0.1:9", node_id="ab" * 28)

    class Client:
        def __init__(self, *, address: str) -> None:
            assert address == node.address

        def drain_node(self, *_: object) -> tuple[bool, str]:
            return False, "the node is idle no longer"

    monkeypatch.setattr("ray._raylet.GcsClient", Client)
    with pytest.raises(DrainError, match="refused: the node is idle no longer"):
        drain(node, seconds_left=60, message="test")
    monkeypatch.setattr(Client, "drain_node", lambda *_: 1 / 0)
    with pytest.raises(DrainError, match=r"127\.0\.0\.1:9 could not be told: division by zero"):
        drain(node, seconds_left=60, message="test")


class Work:
    def ping(self) -> str:
        return answer()


def answer() -> str:
    return "alive"


def wait_until(condition: Any, *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
