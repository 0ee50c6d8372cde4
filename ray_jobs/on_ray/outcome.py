"""What came of one item of many that are done side by side, and their doing in threads of this process, without Ray."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from ray_jobs.on_ray.threads import run_in_threads
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
    for index, (result, error) in run_in_threads(partial(do_item, make()), items, threads=threads):
        yield Outcome(item=items[index], result=result, error=error)
