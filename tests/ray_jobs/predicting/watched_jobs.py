"""What the watched process of test_watched.py does: another process must be able to import it."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storage import InputError


@dataclass(frozen=True, kw_only=True)
class MakeJob:
    """Notes in a folder which process was made; `unable` says why it cannot be."""

    folder: Path
    unable: str = ""

    def __call__(self) -> Callable[[str], tuple[str, int]]:
        with (self.folder / "made").open("a") as file:
            file.write("x")
        if self.unable:
            raise InputError(self.unable)
        return do_as_told


def do_as_told(item: str) -> tuple[str, int]:
    if item == "hangs":
        time.sleep(600)
    if item == "grows":
        hoard = [b"x" * 2**28 for _ in range(8)]  # 2 GiB, and no more if nobody looks
        time.sleep(600)
        return str(len(hoard)), 0
    if item == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "is bad":
        raise InputError("it is bad; mend it")
    if item == "has a mistake":
        raise ZeroDivisionError("division by zero")
    return item.upper(), os.getpid()
