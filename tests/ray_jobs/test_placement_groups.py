"""Placement groups that outlived their job are found and freed; those of running jobs are not."""

import time
from collections.abc import Iterator

import pytest
import ray
from ray.util.placement_group import placement_group

from ray_jobs.on_ray import leaked_groups
from ray_jobs.on_ray.leaked_groups import find_leaked_groups
from ray_jobs.on_ray.ray_start import ray_running


@pytest.fixture
def _cluster() -> Iterator[None]:
    with ray_running():
        yield


@pytest.mark.processes
@pytest.mark.usefixtures("_cluster")
def test_a_group_is_leaked_when_its_job_runs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    free = ray.available_resources()["CPU"]
    ray.get(placement_group([{"CPU": 1}]).ready())
    assert find_leaked_groups() == []  # its job is this test, which runs
    with monkeypatch.context() as patch:
        patch.setattr(leaked_groups, "list_jobs", lambda address, limit: [])  # as if it had ended
        (leaked,) = find_leaked_groups()
    assert leaked.resources == {"CPU": 1}
    wait_for_cpus(free - 1)
    leaked.remove()
    wait_for_cpus(free)
    assert find_leaked_groups() == []


def wait_for_cpus(wanted: float) -> None:
    for _ in range(2400):
        if ray.available_resources().get("CPU") == wanted:
            return
        time.sleep(0.1)
    raise AssertionError(f"{ray.available_resources()} are free, wanted {wanted} CPUs")


def test_the_command_wants_a_cluster(run_here) -> None:
    done = run_here("placement_groups.py")
    assert done.returncode == 2 and "RAY_ADDRESS is not set" in done.stderr
