"""How many items are out, and how many Ray is asked about at a time, counted; Ray's place is taken by a list."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.on_ray import conversion_workers
from storage import InputError


class OneAfterTheOther:
    """A cluster of three CPUs, on which work ends in the order in which it was given out."""

    exceptions = conversion_workers.ray.exceptions
    ObjectRef = object

    def __init__(self) -> None:
        self.given_out = 0
        self.out: list[int] = []
        self.awaited: list[int] = []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    def remote(self, **_: object) -> Callable[[Any], Any]:
        return lambda function: SimpleNamespace(remote=lambda item: self._give_out(function(item)))

    def _give_out(self, result: object) -> tuple[object, int]:
        self.given_out += 1
        return result, self.given_out

    def wait(self, awaited: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        self.out.append(self.given_out - len(self.awaited))
        self.awaited.append(len(awaited))
        return awaited[:num_returns], awaited[num_returns:]

    def get(self, reference: tuple[object, int]) -> object:
        return reference[0]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> OneAfterTheOther:
    monkeypatch.setenv("RAY_ADDRESS", "a cluster")
    stand_in = OneAfterTheOther()
    monkeypatch.setattr(conversion_workers, "ray", stand_in)
    return stand_in


WORKERS = conversion_workers.Workers(Console(quiet=True), lambda: None)


def test_few_cases_that_hold_their_files_are_out_at_once(cluster: OneAfterTheOther) -> None:
    """As many as there are CPUs and two more, whatever the archive has."""
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    assert WORKERS.map(lambda item: item, items(), "converting") == list(range(20))
    assert max(cluster.out) == 5 and len(made) == 20


def test_a_cluster_sees_all_and_is_asked_about_few(cluster: OneAfterTheOther) -> None:
    """All are given out, so that a cluster grows for them; what Ray looks at grows with the cases, not their square."""
    assert WORKERS.map(lambda item: -item, list(range(500)), "converting") == [-item for item in range(500)]
    assert cluster.out[0] == 500
    assert len(cluster.awaited) == 500 and max(cluster.awaited) == 5


def test_on_one_machine_threads_convert_and_few_cases_are_out_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion_workers, "share_of_cores", lambda workers: 3)
    workers = conversion_workers.Workers(Console(quiet=True), lambda: pytest.fail("Ray was to start"))
    together = threading.Barrier(3, timeout=60)  # passed where three are at work at once
    done: list[int] = []
    out: list[int] = []

    def items() -> Iterator[int]:
        for number in range(21):
            out.append(number + 1 - len(done))
            yield number

    def work(number: int) -> int:
        together.wait()
        done.append(number)
        return 2 * number

    assert workers.map(work, items(), "converting") == list(range(0, 42, 2))
    assert max(out) <= 5


def test_the_first_error_stops_the_rest() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        raise InputError(f"disk {number} is full")

    with pytest.raises(InputError, match="is full"):
        WORKERS.map(work, list(range(1000)), "converting")
    assert len(begun) < 1000
