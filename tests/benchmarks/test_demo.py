"""To whom the demo's CPU time is put down, though processes change their titles and end."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.demo import Family


class FakeProcess:
    def __init__(self, pid: int, *lines: str) -> None:
        self.pid, self._lines, self._looks = pid, lines, 0

    def create_time(self) -> float:
        return 0.0

    def oneshot(self) -> Any:
        return nullcontext()

    def cpu_times(self) -> Any:
        self._looks += 1
        return SimpleNamespace(user=float(self._looks), system=0.5)

    def cmdline(self) -> list[str]:
        return [self._lines[min(self._looks, len(self._lines)) - 1]]

    def children(self, *, recursive: bool) -> list["FakeProcess"]:
        return FAMILY[1:] if recursive else []


NODE = "Ray's node and dashboard"
HELPERS = "Ray Train's helpers and the board of news"
FAMILY = [
    FakeProcess(1, "python ray_jobs/train.py"),
    FakeProcess(2, "python ray_jobs/train.py", "gcs_server", "gcs_server"),  # forked, then itself
    FakeProcess(3, "raylet", "default_worker.py", "ray::Board"),
    FakeProcess(4, "default_worker.py", "ray::RayTrainWorker", "ray::IDLE"),
    FakeProcess(5, "ray::TrainController.run", "ray::TrainController.run", ""),  # it ends
    FakeProcess(6, "raylet", "raylet", ""),
]


def test_the_time_of_a_process_goes_to_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for process in FAMILY:
        process._looks = 0
    family = Family(root=FAMILY[0])  # type: ignore[arg-type]
    for _ in range(3):
        family.look()
    assert family.by_kind() == {
        "the command": (3.5, 1),
        NODE: (7.0, 2),
        HELPERS: (3.5, 1),
        "ranks": (3.5, 1),
        "Ray Train's controller": (3.5, 1),
    }
    assert family.cpu == 21
