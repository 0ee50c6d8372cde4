"""What this process's runs ask Ray's autoscaler for, withdrawn when the process ends before they do.

A run's controller withdraws it when the run ends. One that is stopped while it waits for machines dies with its driver,
and its request outlives it by three minutes (Ray Train's AUTOSCALING_REQUESTS_EXPIRE_TIME_S), in which machines boot,
and fail once more to boot, for nobody.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_requesters: set[str] = set()


@contextmanager
def asking_for(run_id: str) -> Iterator[None]:
    """A run of Ray Train asks for machines meanwhile."""
    _requesters.add(f"train-{run_id}")  # as its ScalingPolicy names itself
    try:
        yield
    finally:
        _requesters.discard(f"train-{run_id}")


def ask_for_nothing() -> None:
    """Withdraw what runs ask for that have not come to their end; before Ray is left."""
    if not _requesters:
        return
    from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
        TrainAutoscalingCoordinatorClient,
    )

    for requester in sorted(_requesters):
        TrainAutoscalingCoordinatorClient(requester).cancel_resource_request()
