"""Workers that outlive the run they train: those of a trial that Tune stopped train on for a moment."""

import time
from collections.abc import Callable

import ray
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.util.state import list_actors, list_workers
from ray.util.state.exception import RayStateApiException

SECONDS_TO_END = 60.0
SECONDS_TO_DIE = 1.0  # a worker says that it ends milliseconds before it does; a busy machine stretches them
MOST_LISTED = 10_000


def wait_for_last_workers(pause: Callable[[float], None] = time.sleep, *, seconds: float = SECONDS_TO_END) -> bool:
    """Wait until no worker of this job trains any more; return whether that came to pass within so many seconds.

    Until then their folders change: a better checkpoint may be written, and the one that was the best deleted.
    """
    until = time.monotonic() + seconds
    while train_workers_alive():
        if time.monotonic() > until:
            return False
        pause(0.2)
    pause(SECONDS_TO_DIE)
    return True


def train_workers_alive() -> bool:
    """Whether a process that is or was one of this job's Ray Train workers runs, or nobody answers who knows it."""
    # Without an address the state API guesses, and refuses where several clusters run on one machine.
    address, job = ray.get_runtime_context().gcs_address, ray.get_runtime_context().get_job_id()
    ours = [("job_id", "=", job), ("class_name", "=", RayTrainWorker.__name__)]
    try:
        actors = list_actors(address, filters=ours, limit=MOST_LISTED)
        # Not by the actors' state: that is DEAD as soon as Ray wants it, and the process trains on.
        # Filtered here: Ray takes what its own filter by life leaves out for missing, and refuses.
        listed = list_workers(address, limit=MOST_LISTED, detail=True, raise_on_missing_output=False)
    except RayStateApiException:  # busy, or just restarting
        return True
    running = {(worker.node_id, worker.pid) for worker in listed if worker.is_alive}
    return any((actor.node_id, actor.pid) in running for actor in actors)
