"""SIGTERM or Ctrl-C while training: the run saves its state and ends, rather than being cut off.

Ray's `fit()` would take Ctrl-C for itself and SIGTERM would end the driver at once, so `fit()` runs in a thread and
the main thread keeps the signals.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
        self.when_asked: Callable[[], object] = lambda: None  # first of all: what asked may not wait long

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return bool(self._signals)

    @property
    def exit_status(self) -> int:
        """What a shell expects of a process that ended after the signal."""
        return 128 + (self._signals[0] if self._signals else signal.SIGTERM)

    def guard_all(self, works: Sequence[Callable[[], T]], *, ask: Callable[[], bool], at_once: int = 1) -> dict[int, T]:
        """Return what each of `works`, by its number, returns, `at_once` of them side by side.

        When a signal comes, or one of them raises, those under way are asked to end and no other begins; what was
        raised comes out. `ask` says whether there is anybody to ask. Raises StoppedBySignalError when cut off.
        """
        left, outcomes = iter(enumerate(works)), dict[int, T]()
        failures: list[BaseException] = []
        one_at_a_time = threading.Lock()

        def run() -> None:
            while True:
                with one_at_a_time:
                    index, work = next(left, (0, None))
                if work is None:
                    return
                try:
                    outcomes[index] = work()
                except BaseException as error:
                    failures.append(error)
                if failures or self._signals:
                    return

        threads = [threading.Thread(target=run, daemon=True, name="fit") for _ in works[:at_once]]
        with self._signals_taken():
            for thread in threads:
                thread.start()
            self._wait_for(threads, ask, failures)
        if failures:
            raise failures[0]
        return outcomes

    def _wait_for(
        self, threads: Sequence[threading.Thread], ask: Callable[[], bool], failures: Sequence[BaseException]
    ) -> None:
        asked: float | None = None
        nobody = False
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(SECONDS_BETWEEN_LOOKS)
            if (self._signals or failures) and asked is None:
                asked = time.monotonic()
                if self._signals:
                    self.when_asked()
                nobody = not ask()
            overdue = asked is not None and time.monotonic() - asked > SECONDS_TO_SAVE
            if nobody or overdue or len(self._signals) > 1:
                raise failures[0] if failures else StoppedBySignalError(self.exit_status)

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
