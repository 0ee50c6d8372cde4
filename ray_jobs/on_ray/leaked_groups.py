"""Placement groups whose job has ended: what they hold, and how they are freed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._raylet import PlacementGroupID
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_jobs, list_placement_groups

HOLDING = ("CREATED", "PENDING", "RESCHEDULING", "PREPARED")
MOST_LISTED = 10_000


@dataclass(frozen=True, kw_only=True)
class LeakedGroup:
    """A group that its job left behind."""

    group_id: str
    job_id: str
    resources: Mapping[str, float]
    """What all of its bundles hold."""

    def remove(self) -> None:
        """Free it."""
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(self.group_id))))


def find_leaked_groups() -> list[LeakedGroup]:
    """Return the groups that hold resources, or wait for some, and whose job runs no more."""
    # Without an address the state API guesses, and refuses where several clusters run on one machine.
    address = ray.get_runtime_context().gcs_address
    jobs = list_jobs(address, limit=MOST_LISTED)
    running = {job.job_id for job in jobs if job.job_id and job.status in ("RUNNING", "PENDING")}
    return [
        LeakedGroup(group_id=group.placement_group_id, job_id=group.creator_job_id, resources=_held(group.bundles))
        for group in list_placement_groups(address, limit=MOST_LISTED, detail=True)
        if group.state in HOLDING and group.creator_job_id not in running and not group.is_detached
    ]


def _held(bundles: list[Mapping[str, Any]] | None) -> dict[str, float]:
    held: Counter[str] = Counter()
    for bundle in bundles or []:
        held.update(bundle["unit_resources"])
    return dict(held)
