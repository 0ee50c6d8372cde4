"""CPU and wall time of a stretch of work, a patch."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Milliseconds a patch: of all this process's threads together, and on the clock."""

    cpu_ms: float
    wall_ms: float

    def to_json(self) -> dict[str, float]:
        """The two figures, to three significant digits."""
        return {name: float(f"{value:.3g}") for name, value in asdict(self).items()}


def measure(work: Callable[[], object], *, patches: int, rounds: int = 1) -> Cost:
    """What `work`, which handles that many patches, costs a patch; the cheapest of several rounds.

    Others on the machine can only add to a figure, also to CPU time: they share its caches and its memory's bandwidth.
    """
    costs = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        costs.append(Cost(cpu_ms=1000 * cpu / patches, wall_ms=1000 * wall / patches))
    return min(costs, key=lambda cost: cost.cpu_ms)
