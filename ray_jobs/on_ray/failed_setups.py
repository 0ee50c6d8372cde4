"""Machines that cannot be made ready: Ray tries a set-up three times, ends the machine and boots another, for ever.

What Ray's monitor writes down on the head, where jobs' drivers run, is followed; the job ends with the reason.
"""

import os
import re
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

from ray_jobs.on_ray.monitor_log import MONITOR_LOG, MONITOR_OUT, NewLines

ATTEMPTS = 3  # of Ray 2.60 on one machine (ThreadedRayInstaller)
SECONDS_BETWEEN_LOOKS = 5.0
FAILED = re.compile(r"Ray installation failed on instance (\S+):")
GONE = re.compile(r"Update instance RAY_INSTALLING->TERMINATED \(.*?cloud_instance_id=([^,]+),")  # as spot takes them
DONE = re.compile(r"Update instance RAY_INSTALLING->RAY_RUNNING")
REASON = re.compile(r"set-up failed: ([^\r\n]+)")  # of cluster/node/setup.sh


class SetupLog:
    """What the monitor writes to `logs` from now on: in its log what failed, in the other what was printed there."""

    def __init__(self, logs: Path) -> None:
        self._out = logs / MONITOR_OUT
        self._log_news, self._out_news = NewLines(logs / MONITOR_LOG), NewLines(self._out)
        self._failures: Counter[str] = Counter()
        self._reason = ""

    def trouble(self) -> str | None:
        """Why no machine can be made ready: one was given up on, and none has been ready since this log began."""
        if found := REASON.findall(self._out_news.read()):
            self._reason = found[-1].strip()
        news = self._log_news.read()
        if DONE.search(news):
            self._failures.clear()  # it can be done; what failed was the machine
        self._failures.update(FAILED.findall(news))
        for machine in GONE.findall(news):
            del self._failures[machine]
        for machine, failures in self._failures.items():
            if failures >= ATTEMPTS:
                reason = self._reason or f"the end of {self._out} says why"
                return f"the set-up of a worker failed {failures} times on {machine}: {reason}"
        return None


def end_where_setups_fail(logs: Path) -> None:
    """From now on, end this process as SIGTERM does, and say why, when no worker can be made ready."""

    def watch() -> None:
        log = SetupLog(logs)
        while (trouble := log.trouble()) is None:
            threading.Event().wait(SECONDS_BETWEEN_LOOKS)
        print(f"error: {trouble}; mend it and submit the job again", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="failed-setups").start()
