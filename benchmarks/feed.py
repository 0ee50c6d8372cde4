"""The feed of a step that sleeps: does the loader keep up where the step takes as long as the loader does?

On a CPU the loader and the network share the cores, and each slows the other. A sleeping step leaves the cores to the
loader, as a GPU's step does. It sleeps for a multiple of the loader's mean time per batch, so what is waited for comes
from batches that cost more than the mean, and from how few are held ready against them.

"waits" is measured on the clock, and is right on a machine that does nothing else. "waits, replayed" takes the
measured cost of each batch (CPU seconds on a CPU, where others cannot add to it) through the queue's rules.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any

from dali_pipelines import PatchLoader
from ray_jobs.on_ray.session import Session
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run import prepare

WARM_UP = 5
LATE_SECONDS = 0.001  # handing over a batch that is ready takes less


def feed_rows(
    plan: TrainPlan, session: Session, multiples: Sequence[float], depths: Sequence[int], *, steps: int
) -> list[dict[str, Any]]:
    """One row for each number of ready batches and each multiple of the loader's time per batch."""
    with open_loader(plan, session, 1) as loader:
        costs = batch_costs(loader, steps, on_cpu=session.device.type == "cpu")
    rows: list[dict[str, Any]] = []
    for depth in depths:
        with open_loader(plan, session, depth) as loader:
            begin = loader.state_dict()
            alone = fmean(waits_of(loader, 0.0, steps))
            for multiple in multiples:
                loader.load_state_dict(begin)  # the same batches: what is drawn for them decides what they cost
                sleep = multiple * alone
                waits = waits_of(loader, sleep, steps, pause=2 * depth * alone)
                replayed = replay(costs, multiple * fmean(costs), depth)
                rows.append(
                    {
                        "ready batches": depth,
                        "step / loader": multiple,
                        "loader ms a batch": 1000 * alone,
                        "cost ms": 1000 * fmean(costs),
                        "spread": f"{pstdev(costs) / fmean(costs):.0%}",
                        "late": f"{sum(wait > LATE_SECONDS for wait in waits)} of {steps}",
                        "waits": f"{share(waits, sleep):.1%}",
                        "waits, replayed": f"{share(replayed, multiple * fmean(costs)):.1%}",
                    }
                )
    return rows


def open_loader(plan: TrainPlan, session: Session, ready_batches: int) -> PatchLoader:
    """The training run's loader, with another number of batches held ready."""
    return prepare(replace(plan, config=replace(plan.config, ready_batches=ready_batches)), session).loader


def batch_costs(loader: PatchLoader, steps: int, *, on_cpu: bool) -> list[float]:
    """What each batch costs: CPU seconds of all threads, or seconds where a GPU computes."""
    clock = time.process_time if on_cpu else time.perf_counter
    batches = iter(loader)
    marks = []
    for _ in range(WARM_UP + steps + 1):
        next(batches)
        marks.append(clock())
    return [later - earlier for earlier, later in zip(marks[WARM_UP:], marks[WARM_UP + 1 :], strict=False)]


def waits_of(loader: PatchLoader, step_seconds: float, steps: int, *, pause: float = 0.0) -> list[float]:
    """What each of `steps` batches was waited for, by a step that sleeps that long.

    pause: seconds before the first of them, in which batches get ready as during a validation.
    """
    batches = iter(loader)
    for _ in range(WARM_UP):
        next(batches)
    time.sleep(pause)
    waits = []
    for _ in range(steps):
        asked = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - asked)
        time.sleep(step_seconds)
    return waits


def replay(costs: Sequence[float], step_seconds: float, ready_batches: int) -> list[float]:
    """The waits of a step that takes `step_seconds`, for batches of these costs computed one after the other.

    A batch is begun when the one before it is done and one of `ready_batches` places is free, as in run_ahead.py. The
    first is asked for when all places are full, as after a validation.
    """
    done: list[float] = []
    taken: list[float] = []
    waits = []
    asked = sum(costs[:ready_batches])
    for number, cost in enumerate(costs):
        free = taken[number - ready_batches] if number >= ready_batches else 0.0
        done.append(max(free, done[-1] if done else 0.0) + cost)
        taken.append(max(done[-1], asked))
        waits.append(taken[-1] - asked)
        asked = taken[-1] + step_seconds
    return waits


def share(waits: Sequence[float], step_seconds: float) -> float:
    """The part of the time that was spent waiting."""
    total = sum(waits) + len(waits) * step_seconds
    return sum(waits) / total
