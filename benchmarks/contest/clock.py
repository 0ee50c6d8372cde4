"""CPU-seconds of a program and of all that it starts, also of what has ended: other work beside it does not count.

Linux counts them for a control group (cgroup v2, cpu.stat) where this user may make one. Elsewhere the program looks at
its family many times a second (benchmarks/demo.py): what a process spends after the last look at it is lost.
"""

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.demo import SECONDS_BETWEEN_LOOKS, Family

GROUP = "BRATS_CPU_GROUP"  # the program's group, where it has one
PR_SET_PDEATHSIG = 1


class Clock:
    """What this program has spent so far, from its start; `before` is added: what an earlier start of it spent."""

    def __init__(self, before: float = 0.0) -> None:
        self._before = before
        self._group = os.environ.get(GROUP)
        self.how = "cgroup cpu.stat" if self._group else f"looks every {SECONDS_BETWEEN_LOOKS:g} s"

    def keep_looking(self) -> None:
        """Called once by a program, at its start: where it has no group, children that end are counted so."""
        if not self._group:
            watched_family().watch()

    def spent(self) -> float:
        """CPU-seconds."""
        return self._before + (read_usage(Path(self._group)) if self._group else watched_family().look())


class WatchedFamily:
    """This process and all that came of it, which `watch` looks at all the time."""

    def __init__(self) -> None:
        self._family, self._lock = Family(root=psutil.Process()), threading.Lock()
        self._ended = threading.Event()  # never set: the thread ends with the process

    def watch(self) -> None:
        """Look from now on, until this process ends."""
        threading.Thread(target=self._watch, name="cpu-clock", daemon=True).start()

    def look(self) -> float:
        """CPU-seconds of all until now."""
        with self._lock:
            self._family.look()
            return self._family.cpu

    def _watch(self) -> None:
        while True:
            self.look()
            self._ended.wait(SECONDS_BETWEEN_LOOKS)


@functools.cache
def watched_family() -> WatchedFamily:
    """The one of this process."""
    return WatchedFamily()


def read_usage(group: Path) -> float:
    """CPU-seconds of all that ever ran in the group."""
    words = (group / "cpu.stat").read_text().split()
    return int(words[words.index("usage_usec") + 1]) / 1e6


def make_group(name: str) -> Path | None:
    """A new control group below this process's own, ending what an earlier one of that name left running."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    own = [line.split("::", 1)[1] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"]
    for words in mounts:
        if "cgroup2" not in words or not own:
            continue
        group = Path(words[4], own[0].lstrip("/"), f"brats-{name}")
        try:
            remove_group(group)
            group.mkdir()
            read_usage(group)
            return group
        except (OSError, ValueError):
            continue
    return None


def remove_group(group: Path) -> None:
    """End all that runs in the group, and the group."""
    while group.exists():
        (group / "cgroup.kill").write_text("1")
        try:
            group.rmdir()
        except OSError:  # busy: the killed are not gone yet
            time.sleep(0.05)


def die_with_parent() -> None:
    """Called in a new process: it is killed where the one that started it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run_counted(words: Sequence[str], *, name: str, log: Path, cwd: Path) -> int:
    """Run a program in a group of its own, where one can be made, and return its exit status. It dies with this one."""
    group = make_group(name)
    environment = {key: value for key, value in os.environ.items() if key not in (GROUP, "RAY_ADDRESS")}
    if group is not None:
        environment[GROUP] = str(group)
        words = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *words]
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the group is ended
    try:
        with log.open("a") as output:
            return subprocess.Popen(
                words,
                cwd=cwd,
                env=environment,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,
            ).wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        if group is not None:
            remove_group(group)
