"""What a stretch of work costs: CPU time, wall time and memory. Needs nothing installed: peers' Pythons import it."""

import resource
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds: of all this process's threads together, and on the clock."""

    cpu: float
    wall: float

    def milliseconds(self) -> dict[str, float]:
        """As columns of a table, to three significant digits."""
        return {"cpu_ms": float(f"{1000 * self.cpu:.3g}"), "wall_ms": float(f"{1000 * self.wall:.3g}")}


def time_call(work: Callable[[], object]) -> Cost:
    """What one call costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)


def time_program(words: Sequence[str]) -> Cost:
    """What a program costs with all that it starts and waits for; raises OSError with what it said where it fails."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True)
    wall = time.perf_counter() - wall
    if done.returncode != 0:
        raise OSError(f"{words[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall=wall)


def time_patches(work: Callable[[], object], *, patches: int, rounds: int = 1) -> Cost:
    """What `work`, which handles that many patches, costs a patch; the cheapest of several rounds.

    Others on the machine can only add to a figure, also to CPU time: they share its caches and its memory's bandwidth.
    """
    best = min((time_call(work) for _ in range(rounds)), key=lambda cost: cost.cpu)
    return Cost(cpu=best.cpu / patches, wall=best.wall / patches)


def resident_mib(name: str) -> float | None:
    """This process's memory as Linux keeps account of it: VmRSS now, VmHWM at most so far; None elsewhere.

    Not getrusage's figure, which a child inherits from its parent.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), None)


def conversion_figures(cost: Cost, files: Sequence[Path], *, cases: int) -> dict[str, float]:
    """Columns of the convert benchmark, whoever wrote the files; the memory is this process's so far."""
    return {
        "CPU-s per case": cost.cpu / cases,
        "wall-s per case": cost.wall / cases,
        "MB per case": sum(path.stat().st_size for path in files) / cases / 1e6,
        "objects per case": len(files) / cases,
        "peak MB": (resident_mib("VmHWM") or 0.0) * 2**20 / 1e6,
    }
