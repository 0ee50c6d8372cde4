"""Work in a process of its own, one item after the other: what takes too long or too much memory ends, and is named.

The process keeps what was loaded; one that ended is replaced with the next item. Knows no Ray.
"""

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from storage import InputError

SECONDS_TO_START = 600.0  # to load PyTorch, CUDA and the weights from a slow disk
STARTS = 3  # one after the other that fail: then nothing more is tried
_SECONDS_BETWEEN_LOOKS = 0.1

Answer = tuple[Any, str | None]
"""A result and no error, or no result and what went wrong."""


class WatchedWork:
    """`make` builds what does the work, in the process; picklable. Use it as a context: it ends the process."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], *, seconds: float, gib: float) -> None:
        self._make, self._seconds, self._gib = make, seconds, gib
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._failed_starts, self._why = 0, ""

    def __enter__(self) -> "WatchedWork":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def do(self, item: Any) -> Answer:
        """Return what came of the item, within its time and memory."""
        while self._process is None:
            if self._failed_starts == STARTS:
                return None, f"nothing can be done here: {self._why}"
            if (error := self._start()) is not None:
                self._failed_starts, self._why = self._failed_starts + 1, error
        assert self._connection is not None
        self._connection.send(item)
        return self._await(self._seconds)

    def _start(self) -> str | None:
        """Start a process and wait until it is ready; return why it is not."""
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make), daemon=True)
        self._process.start()
        theirs.close()
        _, error = self._await(SECONDS_TO_START)
        if error is None:
            self._failed_starts = 0
        else:
            self._end()
        return error

    def _await(self, seconds: float) -> Answer:
        """The process's answer; it is ended where none comes in time, or it has taken too much memory."""
        assert self._connection is not None and self._process is not None
        end = time.monotonic() + seconds
        while not self._connection.poll(_SECONDS_BETWEEN_LOOKS):
            if time.monotonic() > end:
                return self._cut_off(f"took more than {seconds:g} s")
            if _resident_gib(self._process) > self._gib:
                return self._cut_off(f"took more than {self._gib:g} GiB of memory")
        try:
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return self._cut_off(f"its process died ({_how_it_ended(self._process.exitcode)})")
        return answer

    def _cut_off(self, why: str) -> Answer:
        self._end()
        return None, why

    def _end(self) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None


def _serve(connection: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """The process: make once, then do what comes until nothing more can."""
    try:
        work = make()
    except Exception as error:
        connection.send((None, _described(error)))
        return
    connection.send((None, None))
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        try:
            answer: Answer = work(item), None
        except Exception as error:  # a mistake in one case's work must not cost the others
            answer = None, _described(error)
        connection.send(answer)


def _described(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    first = (str(error).strip().splitlines() or ["no more is known"])[0]
    return f"{type(error).__name__}: {first}"


def _resident_gib(process: BaseProcess) -> float:
    try:
        return psutil.Process(process.pid).memory_info().rss / 2**30
    except psutil.Error:
        return 0.0  # it died: reading its answer says so


def _how_it_ended(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit status {exitcode}"
