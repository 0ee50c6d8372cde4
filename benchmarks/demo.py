"""`make train` after the installation, in parts: what each takes by the clock, of the CPU, and of processes.

Everything is cold: the synthetic cohort is written and converted, too. The clock of a shared machine says little; what
all processes together spend of the CPU says more, and two cores cannot be faster than half. What others on the machine
spent meanwhile is a row, too.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.page import ROOT
from benchmarks.report import report
from benchmarks.settings import DemoBenchmark
from storage import InputError

SECONDS_BETWEEN_LOOKS = 0.05  # until the first step: each look costs the CPU some milliseconds
SECONDS_LATER = 1.0
NAME = "demo"
FIRST_STEP = "all up to the first step"

# The first of these words in a process's command line or title says what it is.
KINDS = {
    "RayTrainWorker": "ranks",
    "train.py": "the command",
    "TrainController": "Ray Train's controller",
    "ray::": "Ray Train's helpers and the board of news",
    "default_worker": "Ray Train's helpers and the board of news",
    "": "Ray's node and dashboard",
}
OF_TITLES = (KINDS["RayTrainWorker"], KINDS["TrainController"])


@dataclass(kw_only=True)
class Family:
    """A process and all that came of it. `spent` has the CPU-seconds of each, also of those that ended."""

    root: psutil.Process
    spent: dict[tuple[int, float], float] = field(default_factory=dict)
    kinds: dict[tuple[int, float], str] = field(default_factory=dict)

    def look(self) -> None:
        """Take note of all that live."""
        try:
            living = [self.root, *self.root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in living:
            try:
                with process.oneshot():
                    key, times = (process.pid, process.create_time()), process.cpu_times()
                    line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            self.spent[key] = times.user + times.system
            kind = next(kind for word, kind in KINDS.items() if word in line)
            # A worker of Ray's loses its title when its work is done, and every process its line when it ends.
            if key not in self.kinds or (line and self.kinds[key] not in OF_TITLES):
                self.kinds[key] = kind

    @property
    def cpu(self) -> float:
        """CPU-seconds of all."""
        return sum(self.spent.values())

    def by_kind(self) -> dict[str, tuple[float, int]]:
        """CPU-seconds and the number of processes of each kind."""
        found: dict[str, tuple[float, int]] = {}
        for key, kind in self.kinds.items():
            cpu, count = found.get(kind, (0.0, 0))
            found[kind] = cpu + self.spent[key], count + 1
        return found


def marks(folder: Path, printed: Path) -> Mapping[str, Callable[[], bool]]:
    """The parts of a start, in their order, each with the fact that ends it."""
    run = folder / "runs" / NAME

    def lies(pattern: str) -> Callable[[], bool]:
        return lambda: any(folder.glob(pattern))

    return {
        "imports": lambda: True,  # until Ray's first process, see below
        "Ray's start, the synthetic cohort": lies("data/*.zarr"),
        "conversion": (run / "config.json").exists,
        "Ray Train and the ranks' imports": lies(f"runs/{NAME}/events*"),
        "cache, graph, first step": lambda: "epoch 1 of" in printed.read_text(),
    }


def run(config: DemoBenchmark) -> None:
    """Run the demo from nothing to its end."""
    folder = ROOT / ".bench" / NAME  # stays, for the whole-head benchmark
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = measure(folder, config.workers)
    summary = json.loads((folder / "runs" / NAME / "summary.json").read_text())
    scores = ", ".join(f"{summary[part]['iou']['mean']:.3f} on {part}" for part in ("validation", "test"))
    workers = f", {config.workers} worker{'s' * (config.workers > 1)}" if config.workers else ""
    report(f"The demo from the command to its end{workers}: mean IoU {scores}", rows, config.json)


def measure(folder: Path, workers: int | None) -> list[dict[str, str | float | int]]:
    """Rows: the parts, all together, and what of the CPU went to whom."""
    printed = folder / "printed"
    words = [sys.executable, str(ROOT / "ray_jobs" / "train.py"), "--name", NAME]
    words += ["--workers", str(workers)] if workers else []
    began, before = time.time(), spent_by_all()
    with printed.open("w") as output:
        command = subprocess.Popen(words, cwd=folder, env=environment_in(folder), stdout=output, stderr=output)
    family = Family(root=psutil.Process(command.pid))
    rows: list[dict[str, str | float | int]] = []
    try:
        wall, cpu, count = began, 0.0, 0
        for part, ended in marks(folder, printed).items():
            while not ended() or (part == "imports" and len(family.spent) < 2):
                family.look()
                if command.poll() is not None:
                    raise InputError(f"{' '.join(words)} ended before its first step: {printed.read_text()[-500:]}")
                time.sleep(SECONDS_BETWEEN_LOOKS)
            family.look()
            now = time.time()
            rows.append(_row(part, now - wall, family.cpu - cpu, len(family.spent) - count))
            wall, cpu, count = now, family.cpu, len(family.spent)
        rows.append(_row(FIRST_STEP, wall - began, cpu, count))
        while command.poll() is None:
            family.look()
            time.sleep(SECONDS_LATER)
        if command.returncode != 0:
            raise InputError(f"{' '.join(words)} ended with {command.returncode}: {printed.read_text()[-500:]}")
        now, meanwhile = time.time(), spent_by_all() - before
        rows.append(_row("training, validation, test", now - wall, family.cpu - cpu, len(family.spent) - count))
        rows.append(_row("all", now - began, family.cpu, len(family.spent)))
        rows += [_row(f"of it {kind}", None, spent, number) for kind, (spent, number) in family.by_kind().items()]
        rows.append(_row("beside it others on the machine", None, max(0.0, meanwhile - family.cpu), ""))
    finally:
        if command.poll() is None:
            command.send_signal(signal.SIGTERM)
            command.wait()
    return rows


def environment_in(folder: Path) -> dict[str, str]:
    """This process's, for a command on a Ray of its own, whose decoded cases go with the folder."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**environment, "XDG_CACHE_HOME": str(folder / "cache")}


def spent_by_all() -> float:
    """CPU-seconds that all processes of this machine have spent since it started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _row(what: str, wall: float | None, cpu: float, processes: int | str) -> dict[str, str | float | int]:
    return {
        "part": what,
        "seconds": "" if wall is None else round(wall, 1),
        "CPU-seconds": round(cpu, 1),
        "processes": processes,
    }
