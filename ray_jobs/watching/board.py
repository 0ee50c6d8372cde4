"""Where a run's news wait for the driver. A file of its own: the actor that holds them imports no more than this."""

import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Board:
    """Keeps the news until the driver looks. An actor that takes no CPU from the workers."""

    def __init__(self) -> None:
        self._latest: dict[str, Any] | None = None
        self._notes: list[str] = []
        self._marks: list[tuple[str, int, float]] = []
        self._machines: list[Any] = []
        self._stop = False

    def tell(self, progress: dict[str, Any]) -> bool:
        """Take news; return whether the run is asked to stop."""
        if progress["message"]:
            self._notes.append(progress["message"])
        else:
            self._latest = progress
        return self._stop

    def mark(self, moment: str, step: int) -> None:
        """Note when the run came to a moment; of steps in a row the first and the last."""
        if moment == "step" and [each[0] for each in self._marks[-2:]] == ["step", "step"]:
            self._marks.pop()
        self._marks.append((moment, step, time.time()))

    def hire(self, machines: list[Any]) -> None:
        """Take which machines the workers have now."""
        self._machines = machines

    def stop(self) -> None:
        """From now on the answer to news is that the run should save and end."""
        self._stop = True

    def look(self) -> tuple[dict[str, Any] | None, list[str], list[tuple[str, int, float]], list[Any]]:
        """Return the latest news, the notes and the marks since the last look, and the machines."""
        notes, self._notes = self._notes, []
        marks, self._marks = self._marks, []
        return self._latest, notes, marks, self._machines


def start_board() -> Any:
    """Start a Board on this node, which is the driver's: elsewhere it would go when that node goes."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()
