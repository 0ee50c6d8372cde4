"""SIGTERM or Ctrl-C while training: the run saves its state and ends, rather than being cut off.

Ray's `fit()` would take Ctrl-C for itself and SIGTERM would end the driver at once, so `fit()` runs in a thread and
the main thread keeps the signals.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from ray_jobs.settings.exit_status import StoppedBySignalError

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_SAVE = 60.0  # after which the run is cut off: its last checkpoint counts

T = TypeVar("T")


class Stop:
    """Which signals came while guarded work ran. The first asks it to save and end, the second ends it at once."""

    def __init__(self) -> None:
        self._signals: list[int] = []

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that ended after the signal."""
        return 128 + (self._signals[0] if self._signals else signal.SIGTERM)

    def guard(self, work: Callable[[], T], *, ask: Callable[[], bool]) -> T:
        """Return what `work` returns; call `ask` when a signal comes, which says whether there is anybody to ask.

        Raises StoppedBySignalError when cut off.
        """
        outcome: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                outcome.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run, daemon=True, name="fit")
        with self._signals_taken():
            thread.start()
            self._wait_for(thread, ask)
        if failure:
            raise failure[0]
        return outcome[0]

    def _wait_for(self, thread: threading.Thread, ask: Callable[[], bool]) -> None:
        asked: float | None = None
        while thread.is_alive():
            thread.join(SECONDS_BETWEEN_LOOKS)
            if self._signals and asked is None:
                asked = time.monotonic()
                if not ask():
                    raise StoppedBySignalError(self.exit_status)
            if len(self._signals) > 1 or (asked is not None and time.monotonic() - asked > SECONDS_TO_SAVE):
                raise StoppedBySignalError(self.exit_status)

    @contextmanager
    def _signals_taken(self) -> Iterator[None]:
        def note(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)

        before: dict[int, Any] = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
