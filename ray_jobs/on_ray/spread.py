"""Items spread over the cluster: a few actors, each with its network loaded once, take the next item as they are free.

What an actor makes of an item may want finishing, such as figures: CPUs that no actor has do that beside the next item.
What one item's data cause (InputError) is that item's outcome; of an actor or a node that dies, the item is tried again
from its beginning. Anything else ends the work with that error.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import ray

from ray_jobs.on_ray.outcome import Outcome, do_item
from storage import InputError

TRIES = 3  # of an item whose actor dies: a node may go, but an item that takes actors along is bad
FINISHING_PER_WORKER = 8  # at most: each holds a case in memory, and a GPU is done with one in half a second

Item = TypeVar("Item")
Made = TypeVar("Made")
Result = TypeVar("Result")

_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.ObjectLostError,
)


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

    def finish(self, finish: Callable[[Any], Any], made: Any) -> tuple[Any, str | None]:
        """The same of what was made of an item."""
        return do_item(finish, made)


def spread(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], *, workers: int, use_gpu: bool
) -> Generator[Outcome[Item, Result], None, None]:
    """Yield the outcome of each item as it is done, in any order; `make` must be picklable.

    Runs at most `workers` actors of one CPU each, and a GPU where `use_gpu` says so. Closing the iterator ends them.
    Raises the InputError of a `make` that cannot work.
    """
    yield from _Spread(make, None, items, workers, use_gpu=use_gpu).outcomes()


def spread_and_finish(
    make: Callable[[], Callable[[Item], Made]],
    finish: Callable[[Made], Result],
    items: Sequence[Item],
    *,
    workers: int,
    use_gpu: bool,
) -> Generator[Outcome[Item, Result], None, None]:
    """The same, but each result of an actor goes through `finish`, picklable too, on another CPU if one is free.

    Where none is, as on two cores with two workers, the actor does that itself before it takes the next item: so what
    waits in memory is bounded, too.
    """
    yield from _Spread(make, finish, items, workers, use_gpu=use_gpu).outcomes()


class _Spread:
    """The work and where it stands: items that wait, actors that are free, and what is awaited."""

    def __init__(
        self,
        make: Callable[[], Callable[[Any], Any]],
        finish: Callable[[Any], Any] | None,
        items: Sequence[Any],
        workers: int,
        *,
        use_gpu: bool,
    ) -> None:
        self._make, self._items, self._workers = make, items, workers
        self._finish = None if finish is None else ray.put(finish)
        self._actor = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0)(Worker)
        self._helper = ray.remote(num_cpus=1, max_retries=0)(do_item)  # what died is tried from its beginning
        self._waiting, self._tries = deque(range(len(items))), Counter[int]()
        self._free: list[Any] = []
        self._making: dict[Any, tuple[Any, int, Any]] = {}  # by whom, of which item, and where the result will be
        self._finishing: dict[Any, tuple[Any, int]] = {}  # by whom, None for a helper, and of which item

    def outcomes(self) -> Generator[Outcome[Any, Any], None, None]:
        """Do it all."""
        try:
            while self._hand_out():
                (done,), _ = ray.wait([*self._making, *self._finishing], num_returns=1)
                outcome = self._made(done) if done in self._making else self._finished(done)
                if outcome is not None:
                    yield outcome
        finally:
            for worker in (*self._free, *(each[0] for each in (*self._making.values(), *self._finishing.values()))):
                if worker is not None:
                    ray.kill(worker)
            for reference, (worker, _) in self._finishing.items():
                if worker is None:
                    ray.cancel(reference, force=True)

    def _hand_out(self) -> bool:
        """Give waiting items to workers, and end those for whom there is none; return whether anything is awaited."""
        at_work = len(self._making) + sum(worker is not None for worker, _ in self._finishing.values())
        for _ in range(min(len(self._waiting), self._workers - at_work)):
            worker = self._free.pop() if self._free else self._actor.remote(self._make)
            index = self._waiting.popleft()
            self._tries[index] += 1
            result, error = worker.do.options(num_returns=2).remote(self._items[index])
            self._making[error] = worker, index, result
        while self._free:
            ray.kill(self._free.pop())
        return bool(self._making or self._finishing)

    def _made(self, done: Any) -> Outcome[Any, Any] | None:
        """Go on with what a worker has done; return the item's outcome where that is all."""
        worker, index, made = self._making.pop(done)
        try:
            error = _take(done)
            result = _take(made) if self._finish is None else None
        except _LOST as lost:
            return self._again(index, lost)
        if error is not None or self._finish is None:
            self._free.append(worker)
            return Outcome(item=self._items[index], result=result, error=error)
        if self._helpers() > sum(helped is None for helped, _ in self._finishing.values()):
            self._finishing[self._helper.remote(self._finish, made)] = None, index
            self._free.append(worker)
        else:
            self._finishing[worker.finish.remote(self._finish, made)] = worker, index
        return None

    def _finished(self, done: Any) -> Outcome[Any, Any] | None:
        worker, index = self._finishing.pop(done)
        try:
            result, error = _take(done)
        except _LOST as lost:
            return self._again(index, lost)
        if worker is not None:
            self._free.append(worker)
        return Outcome(item=self._items[index], result=result, error=error)

    def _again(self, index: int, lost: Exception) -> Outcome[Any, Any] | None:
        """Let the item wait once more; its error where that was often enough."""
        if self._tries[index] < TRIES:
            self._waiting.appendleft(index)
            return None
        last_line = str(lost).strip().splitlines()[-1]
        return Outcome(item=self._items[index], error=f"its worker died {TRIES} times: {last_line}")

    def _helpers(self) -> int:
        """How many CPUs there are beside the workers': asked each time, as nodes come and go."""
        cpus = int(ray.cluster_resources().get("CPU", 0))
        return min(cpus - self._workers, FINISHING_PER_WORKER * self._workers)


def _take(reference: Any) -> Any:
    """Return what a worker made. Raises its InputError in one line, without its stack trace; _LOST where it died."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as failed:
        if isinstance(failed.cause, (InputError, *_LOST)):
            raise failed.cause from None
        raise
