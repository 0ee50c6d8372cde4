"""Where a run's news wait for the driver. A file of its own: the actor that holds them imports no more than this."""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Board:
    """Keeps the news until the driver looks. An actor that takes no CPU from the workers."""

    def __init__(self) -> None:
        self._latest: dict[str, Any] | None = None
        self._notes: list[str] = []
        self._stop = False

    def tell(self, progress: dict[str, Any]) -> bool:
        """Take news; return whether the run is asked to stop."""
        if progress["message"]:
            self._notes.append(progress["message"])
        else:
            self._latest = progress
        return self._stop

    def stop(self) -> None:
        """From now on the answer to news is that the run should save and end."""
        self._stop = True

    def look(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the latest news and the notes since the last look."""
        notes, self._notes = self._notes, []
        return self._latest, notes


def start_board() -> Any:
    """Start a Board on this node, which is the driver's: elsewhere it would go when that node goes."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()
