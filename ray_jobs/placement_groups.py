"""Placement groups whose job has ended but which still hold CPUs or GPUs: list them, or free them with --remove.

Ray frees a job's groups when it ends; a driver that is killed while its workers start may leave one behind, and the
next run then waits for resources that nobody uses. Needs a running cluster (RAY_ADDRESS, or run it as a job).
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from ray_jobs.settings.console import open_console
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from storage import InputError

if TYPE_CHECKING:
    from ray_jobs.on_ray.leaked_groups import LeakedGroup


@dataclass(frozen=True, kw_only=True)
class PlacementGroupsConfig:
    """List placement groups that outlived their job."""

    remove: bool = False
    """Free them; without this they are only listed."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = read_flags(PlacementGroupsConfig, arguments, description=__doc__)
    if not os.environ.get("RAY_ADDRESS"):
        raise InputError(
            "wanted a cluster, RAY_ADDRESS is not set: "
            "use `ray job submit -- python ray_jobs/placement_groups.py`, or set it to the head's address"
        )
    # PyTorch, DALI and Ray take seconds to import: not before the command line stands.
    from ray_jobs.on_ray.leaked_groups import find_leaked_groups
    from ray_jobs.on_ray.ray_start import ray_running

    console = open_console()
    with ray_running():
        leaked = find_leaked_groups()
        for group in leaked:
            show(group, console, removed=config.remove)
            if config.remove:
                group.remove()
    if not leaked:
        console.print("no placement group outlived its job")
    elif not config.remove:
        console.print("give --remove to free them")
    return 0


def show(group: "LeakedGroup", console: Console, *, removed: bool) -> None:
    """Print one group on a line."""
    held = ", ".join(f"{amount:g} {name}" for name, amount in sorted(group.resources.items()))
    verb = "freed" if removed else "leaked"
    console.print(f"{verb} {group.group_id} of job {group.job_id}: {held}", highlight=False)


if __name__ == "__main__":
    sys.exit(run_command(main))
