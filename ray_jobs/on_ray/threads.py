"""A function of many items in threads of this process, without Ray."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_READY = 2  # beside those that are worked on, so that no worker waits for the next


def run_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Iterator[tuple[int, Result]]:
    """Yield each item's number and result as it is done, in any order; few are asked for before they are worked on.

    The first error stops the rest, and so does closing the iterator.
    """
    coming = enumerate(items)
    index_of: dict[Future[Result], int] = {}
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                for index, item in islice(coming, threads + ITEMS_READY - len(index_of)):
                    index_of[pool.submit(function, item)] = index
                if not index_of:
                    return
                for done in wait(index_of, return_when=FIRST_COMPLETED).done:
                    yield index_of.pop(done), done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for those that run
