"""An iterator worked through by a background thread, so that the one who asks waits only for what is not ready."""

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class RunAhead(Generic[T]):
    """Items of `source`, computed in one thread, at most `ready` of them before they are asked for.

    Owns `source`: it is closed, in that thread, when it ends, raises, or `stop` is called. `initializer` is called in
    that thread before anything else.
    """

    def __init__(
        self,
        source: Generator[T, None, None],
        *,
        ready: int,
        name: str,
        initializer: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._items: SimpleQueue[T | BaseException] = SimpleQueue()
        self._slots = threading.Semaphore(ready)
        self._stopping = threading.Event()
        self._initializer = initializer
        # A daemon: where nobody calls stop, an interpreter that ends must not wait for the next item.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def next(self) -> T:
        """The next item; raises what the source raised, StopIteration at its end."""
        item = self._items.get()
        if isinstance(item, BaseException):
            self._items.put(item)  # whoever asks again gets the same answer, not a wait without end
            raise item
        self._slots.release()
        return item

    def stop(self) -> None:
        """End the thread and close the source; waits for the item that is being computed. Idempotent."""
        self._stopping.set()
        self._slots.release()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        try:
            self._initializer()
            while self._slots.acquire() and not self._stopping.is_set():
                self._items.put(next(self._source))
        except BaseException as error:  # handed to the thread that asks; StopIteration as well
            self._items.put(error)
        finally:
            self._source.close()
