"""Workers of a trial that was stopped train on for a moment: their folders are read when they have ended."""

import os
from collections.abc import Iterator

import psutil
import pytest
import ray

from ray_jobs.on_ray.last_workers import wait_for_last_workers
from ray_jobs.on_ray.ray_start import ray_running


@ray.remote(num_cpus=0)
class RayTrainWorker:
    """Under the name of Ray Train's own."""

    def find_process(self) -> int:
        """Return its id."""
        return os.getpid()


@pytest.fixture
def _on_ray(on_shared_head: None) -> Iterator[None]:
    with ray_running():
        yield


@pytest.mark.processes
@pytest.mark.usefixtures("_on_ray")
def test_workers_are_waited_for_until_they_have_ended() -> None:
    worker = RayTrainWorker.remote()
    process = psutil.Process(ray.get(worker.find_process.remote()))
    assert not wait_for_last_workers(seconds=0)
    process.suspend()
    ray.kill(worker)  # whose actor is dead for Ray now, while its process is there
    assert not wait_for_last_workers(seconds=0)
    process.resume()
    assert wait_for_last_workers()
