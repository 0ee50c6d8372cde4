"""What came of one item of many that are done side by side, and their doing in threads of this process, without Ray."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Generic, TypeVar

from storage import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Item, Result]):
    """What came of one item: its result, or why there is none."""

    item: Item
    result: Result | None = None
    error: str | None = None


def do_item(work: Callable[[Item], Result], item: Item) -> tuple[Result | None, str | None]:
    """Return the result and no error, or no result and what the item's data caused."""
    try:
        return work(item), None
    except InputError as error:
        return None, str(error)


def in_threads(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], *, threads: int
) -> Generator[Outcome[Item, Result], None, None]:
    """Yield the outcome of each item as it is done, in any order. Closing the iterator ends them."""
    if not items:
        return
    work = make()
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        item_of = {pool.submit(do_item, work, item): item for item in items}
        try:
            for done in as_completed(item_of):
                result, error = done.result()
                yield Outcome(item=item_of[done], result=result, error=error)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for those that run
