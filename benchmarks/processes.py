"""How much memory each process of convert, train and predict needs at most: `python -m benchmarks processes`.

The commands run as they are typed. Linux itself remembers each process's peak (VmHWM), so looking now and then is
enough. What processes share is counted for each of them; the last row of a command divides it among them (Pss).
"""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.demo import environment_in
from benchmarks.report import report
from benchmarks.settings import ProcessesBenchmark
from storage import InputError
from storage.scans.phantom import write_phantom_cohort

ROOT = Path(__file__).parents[1]
SECONDS_BETWEEN_LOOKS = 0.5
BRATS_SPACING_MM = 1.0  # BraTS's own, so that a case is as large as a real one
ITSELF, ALL = "the command itself", "all together, shared memory once"
# By a part of their command line, in this order.
RAYS_OWN = {
    "/raylet/raylet": "raylet",
    "/gcs_server": "GCS",
    "log_monitor.py": "log monitor",
    "monitor.py": "autoscaler's monitor",
    "dashboard": "dashboard",
    "DashboardAgent": "dashboard",
    "RuntimeEnvAgent": "runtime environments' agent",
    "runtime_env": "runtime environments' agent",
}
# What a Ray worker is called before it has work, and after.
STARTING = ("python", "python3", "Ray worker: IDLE")


def run(config: ProcessesBenchmark) -> None:
    """Run the three commands one after the other and print what their processes needed."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise InputError("processes wants Linux, which tells each process's peak in /proc; run it there")
    with tempfile.TemporaryDirectory() as folder:
        scans = config.source or write_phantom_cohort(
            Path(folder) / "scans", cases=config.cases, spacing_mm=BRATS_SPACING_MM
        )
        rows = [row for words in commands(scans.absolute()) for row in watch(words, Path(folder))]
    report("Peak memory of each process, MB", rows, config.json)


def commands(scans: Path) -> list[list[str]]:
    """What is typed, in an empty folder."""
    training = ["--preset", "demo", "--store", "store", "--name", "run", "--epochs", "1"]
    return [
        ["convert", "--source", str(scans), "--store", "store"],
        ["train", *training, "--sampling.patches-per-epoch", "16"],
        ["predict", "--checkpoint", "runs/run", "--input", "store", "--output", "predictions"],
    ]


def watch(words: Sequence[str], folder: Path) -> list[dict[str, str | float]]:
    """Run one command; a row for each kind of its processes: how many at most there were, the largest one's peak."""
    peaks: dict[int, float] = {}
    kinds: dict[int, str] = {}
    at_once = Counter[str]()
    together = 0.0
    command = [sys.executable, str(ROOT / "ray_jobs" / f"{words[0]}.py"), *words[1:]]
    with (folder / "log").open("w+") as log:
        running = subprocess.Popen(command, cwd=folder, env=environment_in(folder), stdout=log, stderr=log)
        while running.poll() is None:
            shared_out = 0.0
            alive = Counter[str]()
            for each in _family(running.pid):
                looked = _look_at(each)
                if looked is None:
                    continue
                kind, peak, share = looked
                if each.pid == running.pid:
                    kind = ITSELF
                if kind not in STARTING or kinds.get(each.pid, kind) in STARTING:
                    kinds[each.pid] = kind
                peaks[each.pid] = max(peak, peaks.get(each.pid, 0.0))
                shared_out += share
                alive[kinds[each.pid]] += 1
            together = max(together, shared_out)
            at_once |= alive
            time.sleep(SECONDS_BETWEEN_LOOKS)
        log.seek(0)
        if running.returncode != 0:
            raise InputError(f"{words[0]} ended with {running.returncode}: {log.read().strip()[-500:]}")
    largest = {kind: max(peaks[pid] for pid in peaks if kinds[pid] == kind) for kind in set(kinds.values())}
    rows: list[dict[str, str | float]] = [
        {"command": words[0], "process": kind, "at once": at_once[kind], "peak MB": largest[kind]}
        for kind in sorted(largest, key=lambda kind: (kind != ITSELF, -largest[kind]))
    ]
    return [*rows, {"command": words[0], "process": ALL, "at once": "", "peak MB": together}]


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _look_at(process: psutil.Process) -> tuple[str, float, float] | None:
    """A process's kind, its peak so far and its share of memory now, in MB; None where it has just ended."""
    try:
        words = process.cmdline()
        status = Path(f"/proc/{process.pid}/status").read_text()
        memory = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except (psutil.NoSuchProcess, OSError):
        return None
    peak, share = _kilobytes(status, "VmHWM:"), _kilobytes(memory, "Pss:")
    if not words or peak is None or share is None:
        return None
    return kind_of(words), peak * 1024 / 1e6, share * 1024 / 1e6


def kind_of(words: Sequence[str]) -> str:
    """What a process below a command is, in words, by its command line."""
    line = " ".join(words)
    rays_own = next((name for part, name in RAYS_OWN.items() if part in line), None)
    if rays_own is not None:
        return f"Ray: {rays_own}"
    if line.startswith("ray::"):
        return f"Ray worker: {re.split(r'[.( ]', line.removeprefix('ray::'))[0]}"
    return Path(words[0]).name


def _kilobytes(text: str, name: str) -> int | None:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name)), None)
