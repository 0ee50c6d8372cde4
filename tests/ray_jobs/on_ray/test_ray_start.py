"""A private cluster keeps to itself, and where no cluster is, that is said."""

import os
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray._private.node import Node
from ray.exceptions import RaySystemError

from ray_jobs.on_ray import ray_start
from ray_jobs.on_ray.ray_start import has_dashboard, ray_running
from storage import InputError


@pytest.mark.processes
@pytest.mark.usefixtures("shared_head")
def test_workers_find_their_own_cluster_beside_another() -> None:
    """Ray Train's helpers ask the state API without an address; one that guesses refuses where there are two."""

    def ask() -> list[str]:
        from ray.util.state import list_nodes

        return [node.node_id for node in list_nodes()]

    with ray_running():
        own = ray.get_runtime_context().get_node_id()
        assert ray.get(ray.remote(ask).remote()) == [own]
        assert has_dashboard()


@pytest.mark.processes
@pytest.mark.usefixtures("shared_head")
def test_nothing_is_started_that_has_nothing_to_do() -> None:
    others = set(psutil.Process().children(recursive=True))  # of the head that tests share
    with ray_running(dashboard=False):
        assert ray.get(ray.remote(lambda: 0).remote()) == 0
        assert not has_dashboard()
        own = set(psutil.Process().children(recursive=True)) - others
        lines = [" ".join(process.cmdline()) for process in own]
        assert any("gcs_server" in line for line in lines)
        assert not [line for line in lines if "monitor.py" in line or "ray-dashboard-" in line]
    assert Node.start_monitor.__module__ == Node.__module__  # of who starts a cluster by himself


@pytest.mark.processes
@pytest.mark.usefixtures("shared_head")
def test_a_node_that_goes_while_it_is_asked_for_a_folder_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_running(dashboard=False):
        here = ray.get_runtime_context().get_node_id()
        monkeypatch.setattr(ray_start, "_living_nodes", lambda: [here, "0" * len(here)])
        ray_start.refuse_hidden_folder(str(tmp_path), "run folder")
        with pytest.raises(InputError, match="1 node"):
            ray_start.refuse_hidden_source(str(tmp_path / "nothing"))


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:1"])
def test_where_nobody_answers_is_said(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself gives up after two minutes, and ends the process."""
    monkeypatch.setattr(ray_start, "SECONDS_TO_ANSWER", 0.2)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was to look itself"))
    with socket.socket() as listener:  # it takes connections and says nothing
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("RAY_ADDRESS", address.format(port=listener.getsockname()[1]))
        with pytest.raises(InputError, match=r"RAY_ADDRESS is .*:\d+, where no Ray answered") as said, ray_running():
            pass
    assert "\n" not in str(said.value)


@pytest.mark.processes
def test_what_is_no_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for address, why in (
        ("http://127.0.0.1:8265", "as `ray job submit` takes it"),
        ("nonsense", "Invalid address format"),
    ):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match=why) as said, ray_running():
            pass
        assert str(said.value).startswith(f"RAY_ADDRESS is {address}, ") and "\n" not in str(said.value)


@pytest.mark.processes
def test_a_temp_folder_too_deep_for_sockets_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("deep" * 25)))
    with pytest.raises(InputError, match="set RAY_TMPDIR=/tmp"), ray_running(dashboard=False):
        pass
    assert not ray.is_initialized()


def test_a_node_that_comes_up_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own 30 s ended commands in a traceback where other work kept the machine busy."""
    from ray._private import services

    silent = RaySystemError("Failed to connect to GCS.")
    answers = iter([RuntimeError("no such node"), silent, {"node": 1}])

    def look(*of: str) -> Any:
        assert of == ("head", "id")
        found = next(answers, silent)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(services, "get_node", look)
    with ray_start.starting_no_helpers():
        assert services.get_node("head", "id") == {"node": 1}
        monkeypatch.setattr(ray_start, "SECONDS_TO_START", 0)
        with pytest.raises(InputError, match="Ray did not start within 0 s"):
            services.get_node("head", "id")
    assert services.get_node is look


@pytest.mark.parametrize("error", [RaySystemError("Failed to connect to GCS.\nPlease check"), RuntimeError("no GCS.")])
def test_a_ray_that_does_not_start_is_said_in_a_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(InputError, match=r"^Ray did not start \(.*GCS\); its logs are .*try again$"), ray_running():
        pass
    assert "RAY_ADDRESS" not in os.environ
