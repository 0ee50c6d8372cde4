"""A function of many items: as Ray tasks on a cluster, else in threads of this process, one for each core."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from threading import Lock
from typing import TypeVar

import ray
from rich.console import Console

from ray_jobs.on_ray.address import on_a_cluster
from ray_jobs.on_ray.cores import share_of_cores
from ray_jobs.on_ray.ray_start import refuse_hidden_source
from ray_jobs.on_ray.threads import ITEMS_READY, run_in_threads
from ray_jobs.settings.console import tracked
from storage import CohortStore, InputError, open_store

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Runs a function of many items with a progress bar: as Ray tasks on a cluster, else in threads.

    Voxels are read, unpacked and compressed outside the interpreter's lock, so threads do it side by side. To start Ray
    or other processes would cost more than the work of some dozens of cases.
    """

    def __init__(self, console: Console, start: Callable[[], None], source: str | None = None) -> None:
        self.console = console
        self._start = start
        self._source = source

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], title: str, *, total: int | None = None
    ) -> list[Result]:
        """`function` of every item, in order. The first InputError stops the rest.

        Items that are made one by one, `total` of them where that is known, wait for a free worker with few others:
        they hold files. `start` joins the cluster, where that has not happened yet.
        """
        if isinstance(items, Sequence):
            total = len(items)
        if total == 0:
            return []
        if on_a_cluster() and not ray.is_initialized() and total != 1:
            self._start()
        on_ray = on_a_cluster() and ray.is_initialized()
        if on_ray and self._source is not None:
            refuse_hidden_source(self._source)
        if on_ray:
            outcomes = _run_on_ray(function, items)
        else:
            outcomes = run_in_threads(function, items, threads=share_of_cores(1))
        results = dict(tracked(outcomes, self.console, title, total=total))
        return [results[index] for index in sorted(results)]


def _run_on_ray(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[int, Result]]:
    remote = ray.remote(num_cpus=1)(function)
    # A cluster that grows must see all that there is to do, unless that is not made yet.
    coming = enumerate(items)
    room = _room()
    first = coming if isinstance(items, Sequence) else islice(coming, room)
    index_of = {remote.remote(item): index for index, item in first}
    # Ray looks at each that is awaited: at all of a large cohort, once for each case, is quadratic. Tasks run about in
    # order, so as many as run at once are enough.
    awaited, behind = list[ray.ObjectRef](), deque(index_of)
    try:
        while index_of:
            awaited += [behind.popleft() for _ in range(min(len(behind), room - len(awaited)))]
            (done,), awaited = ray.wait(awaited, num_returns=1)
            yield index_of.pop(done), ray.get(done)
            room = _room()
            for index, item in islice(coming, max(0, room - len(index_of))):
                index_of[reference := remote.remote(item)] = index
                behind.append(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, InputError):
            raise cause from None  # its one line, without the worker's stack trace
        raise
    finally:
        for reference in index_of:
            ray.cancel(reference)


def _room() -> int:
    """How many items are awaited, or are out at once where they hold files: one for each worker, and some more."""
    return int(ray.cluster_resources().get("CPU", 1)) + ITEMS_READY


def open_once(uri: str, known_by: str) -> CohortStore:
    """A worker has many cases of one store; where it is `known_by` something else it is another in the same place."""
    with _OPENING:  # else threads that begin together would each open it
        return _open(uri, known_by)


_OPENING = Lock()


@lru_cache(maxsize=1)
def _open(uri: str, known_by: str) -> CohortStore:
    return open_store(uri)
