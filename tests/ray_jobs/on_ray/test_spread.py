"""Items over actors: each done once, bad ones named, lost workers replaced."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.on_ray.outcome import Outcome
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.on_ray.spread import TRIES, spread
from storage import InputError

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module", autouse=True)
def _cluster(shared_head: Any) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", shared_head.ray)
        with ray_running():
            yield


class Doubler:
    """Doubles numbers; notes in a folder who was made and what was tried."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Callable[[int], int]:
        (self.folder / f"worker-{os.getpid()}").touch()
        return self.work

    def work(self, item: int) -> int:
        with (self.folder / f"item-{item}").open("a") as file:
            file.write("x")
        tried = len((self.folder / f"item-{item}").read_text())
        if item == 3:
            raise InputError("three is not to be doubled")
        if (item == 4 and tried == 1) or item == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 6:
            raise ZeroDivisionError("a mistake in the work itself")
        return 2 * item


def by_item(outcomes: Iterator[Outcome[int, int]]) -> dict[int, Outcome[int, int]]:
    return {outcome.item: outcome for outcome in outcomes}


def test_each_item_is_done_once_by_workers_that_are_made_once(tmp_path: Path) -> None:
    done = by_item(spread(Doubler(tmp_path), [10, 11, 12, 13, 14], workers=2, use_gpu=False))
    assert {item: outcome.result for item, outcome in done.items()} == {n: 2 * n for n in range(10, 15)}
    assert len(list(tmp_path.glob("worker-*"))) == 2
    assert all(file.read_text() == "x" for file in tmp_path.glob("item-*"))


def test_a_bad_item_is_named_and_a_lost_worker_replaced(tmp_path: Path) -> None:
    done = by_item(spread(Doubler(tmp_path), [3, 4, 5, 7], workers=1, use_gpu=False))
    assert done[3].error == "three is not to be doubled"
    assert done[4].result == 8 and (tmp_path / "item-4").read_text() == "xx"
    assert done[5].error is not None and f"died {TRIES} times" in done[5].error
    assert done[7].result == 14


class Unable(Doubler):
    """Cannot make its workers: a checkpoint that is cut short, say."""

    def __call__(self) -> Callable[[int], int]:
        with (self.folder / "made").open("a") as file:
            file.write("x")
        raise InputError("the weights are cut short")


def test_what_no_worker_can_do_without_ends_the_work_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the weights are cut short"):
        by_item(spread(Unable(tmp_path), [1, 2, 3], workers=1, use_gpu=False))
    assert (tmp_path / "made").read_text() == "x"


def test_a_mistake_in_the_work_is_no_bad_item(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError, match="a mistake in the work itself"):
        by_item(spread(Doubler(tmp_path), [6], workers=1, use_gpu=False))
