"""Items over actors: each done once, bad ones named, lost workers replaced."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.on_ray.outcome import Outcome
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.on_ray.spread import TRIES, spread, spread_and_finish
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


def wait_for(file: Path, seconds: float = 60) -> None:
    """Wait for the file; raise where it never comes, so that the test ends."""
    end = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > end:
            raise InputError(f"{file.name} never came")
        time.sleep(0.05)


class Finisher:
    """Adds one, and says which processes made and finished it; notes in a folder what it finished."""

    def __init__(self, folder: Path, awaits: dict[int, str]) -> None:
        self.folder, self.awaits = folder, awaits

    def __call__(self, made: tuple[int, int]) -> tuple[int, int, int]:
        doubled, maker = made
        if (awaited := self.awaits.get(doubled)) is not None:
            wait_for(self.folder / awaited)
        note = self.folder / f"finished-{doubled}"
        tried_before = note.exists()
        note.write_text(" ".join(sorted(path.name for path in self.folder.glob("item-*"))))
        if doubled == 60:
            raise InputError("sixty is not to be finished")
        if doubled == 80 and not tried_before:
            os.kill(os.getpid(), signal.SIGKILL)
        return doubled + 1, maker, os.getpid()


class TellingDoubler(Doubler):
    """Says which process it is, too."""

    def work(self, item: int) -> Any:
        return super().work(item), os.getpid()


def finish(folder: Path, items: list[int], awaits: dict[int, str], *, workers: int) -> dict[int, Any]:
    made, finished = TellingDoubler(folder), Finisher(folder, awaits)
    return by_item(spread_and_finish(made, finished, items, workers=workers, use_gpu=False))  # type: ignore[arg-type]


def test_an_item_is_finished_while_the_next_is_made(tmp_path: Path) -> None:
    """Of two CPUs one has no worker. Were the next item begun after the first is finished, that would never be."""
    done = finish(tmp_path, [10, 11], {20: "item-11"}, workers=1)
    assert {item: outcome.result[0] for item, outcome in done.items()} == {10: 21, 11: 23}
    _, maker, finisher = done[10].result
    assert maker != finisher


def test_what_waits_to_be_finished_is_bounded(tmp_path: Path) -> None:
    """While the only helper is at the first, the worker finishes the second before it begins the third."""
    done = finish(tmp_path, [10, 11, 12], {20: "finished-22"}, workers=1)
    _, maker, finisher = done[11].result
    assert maker == finisher
    assert (tmp_path / "finished-22").read_text().split() == ["item-10", "item-11"]


def test_where_each_cpu_has_a_worker_each_finishes_its_own(tmp_path: Path) -> None:
    done = finish(tmp_path, [10, 11, 12], {}, workers=2)
    assert {item: outcome.result[0] for item, outcome in done.items()} == {10: 21, 11: 23, 12: 25}
    assert all(maker == finisher for _, maker, finisher in (outcome.result for outcome in done.values()))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_cannot_be_finished_is_named_and_what_a_lost_process_held_made_again(tmp_path: Path, workers: int) -> None:
    done = finish(tmp_path, [30, 3, 40, 7], {}, workers=workers)
    assert done[30].error == "sixty is not to be finished"
    assert done[3].error == "three is not to be doubled"
    assert done[40].result[0] == 81 and (tmp_path / "item-40").read_text() == "xx"
    assert done[7].result[0] == 15 and (tmp_path / "item-7").read_text() == "x"
