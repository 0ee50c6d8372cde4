"""Items spread over the cluster: a few actors, each with its network loaded once, take the next item as they are free.

What one item's data cause (InputError) is that item's outcome; an actor that dies is replaced and its
item tried again. Anything else ends the work with that error.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import ray

from ray_jobs.on_ray.outcome import Outcome, do_item
from storage import InputError

TRIES = 3  # of an item whose actor dies: a node may go, but an item that takes actors along is bad

Item = TypeVar("Item")
Result = TypeVar("Result")


class Worker:
    """An actor: `make` builds what does the work, here, where the device is."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._make = make
        self._work: Callable[[Any], Any] | None = None

    def do(self, item: Any) -> tuple[Any, str | None]:
        """Return the result and no error, or no result and the item's error."""
        if self._work is None:
            self._work = self._make()  # not when the actor starts: what fails there looks like a lost node
        return do_item(self._work, item)


def spread(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], *, workers: int, use_gpu: bool
) -> Generator[Outcome[Item, Result], None, None]:
    """Yield the outcome of each item as it is done, in any order; `make` must be picklable.

    Runs at most `workers` actors of one CPU each, and a GPU where `use_gpu` says so. Closing the iterator ends them.
    Raises the InputError of a `make` that cannot work.
    """
    actor = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0)(Worker)
    waiting, tries = deque(range(len(items))), Counter[int]()
    busy: dict[Any, tuple[Any, int]] = {}  # what is awaited: by whom, of which item

    def start(worker: Any) -> None:
        if waiting:
            index = waiting.popleft()
            tries[index] += 1
            busy[worker.do.remote(items[index])] = worker, index
        else:
            ray.kill(worker)

    try:
        for _ in range(min(workers, len(items))):
            start(actor.remote(make))
        while busy:
            (done,), _ = ray.wait(list(busy), num_returns=1)
            worker, index = busy.pop(done)
            try:
                result, error = ray.get(done)
            except ray.exceptions.RayActorError as lost:
                if tries[index] < TRIES:
                    waiting.appendleft(index)
                else:
                    yield Outcome(item=items[index], error=f"its worker died {TRIES} times: {_last_line(lost)}")
                start(actor.remote(make))
                continue
            except ray.exceptions.RayTaskError as failed:
                if isinstance(failed.cause, InputError):
                    raise failed.cause from None  # its one line, without the worker's stack trace
                raise
            yield Outcome(item=items[index], result=result, error=error)
            start(worker)
    finally:
        for worker, _ in busy.values():
            ray.kill(worker)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
