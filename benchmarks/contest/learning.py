"""The training loop around a peer's own step: learning rate by the share of the budget that is spent, weights kept on
the way, and going on after a kill from the newest state. What was done after that state is lost and not counted."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from benchmarks.contest.clock import Clock
from benchmarks.contest.job import Job
from benchmarks.contest.methods import SHARES, SHORT
from benchmarks.cost import time_call
from models import Precision, choose_precision

CPU = torch.device("cpu")
_REHEARSED_SIDE = 64
_SHARE_BEFORE_SHORT, _STEPS_BEFORE_SHORT = 0.05, 3
_SECONDS_BETWEEN_STATES = 60.0  # of CPU


class Learner(Protocol):
    """A peer's network, optimiser, loss and loader."""

    def step(self, share: float) -> None:
        """One update at the learning rate of this share of the schedule."""

    def state(self) -> dict[str, Any]:
        """All that a later `load` needs; "weights" is the network's part."""

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""


def arithmetic() -> Precision:
    """What peers compute in: bfloat16 where this CPU multiplies it fast, as ours decides for itself."""
    return choose_precision(CPU, "auto")


def set_up(job: Job, network: nn.Module) -> nn.Module:
    """One thread, so that none waits for another on this run's account, and the layout that the method is told."""
    torch.set_num_threads(1)
    return lay_out(network, channels_last=job.settings.get("channels_last", False))


def lay_out(network: nn.Module, *, channels_last: bool) -> nn.Module:
    """The network with its weights, and so what it computes, in one layout or the other."""
    three = any(isinstance(module, nn.Conv3d) for module in network.modules())
    last = torch.channels_last_3d if three else torch.channels_last
    # torch's own annotations miss this overload.
    laid_out: nn.Module = network.to(memory_format=last if channels_last else torch.contiguous_format)  # type: ignore[call-overload]
    return laid_out


def rehearse_layout(network: nn.Module, scans: int, dimensions: int) -> dict[str, Any]:
    """Which layout takes less of the CPU for forward and backward pass of a small patch: the peers are given that."""
    torch.set_num_threads(1)
    image = torch.randn(1, scans, *[_REHEARSED_SIDE] * dimensions)

    def step() -> None:
        with arithmetic().autocast(CPU):
            outputs = network(image)
        for_each = outputs if isinstance(outputs, list | tuple) else [outputs]
        torch.stack([output.float().mean() for output in for_each]).sum().backward()

    costs = {}
    for channels_last in (False, True):
        lay_out(network, channels_last=channels_last)
        costs[channels_last] = min(time_call(step).cpu for _ in range(2))
    return {"channels_last": costs[True] < costs[False], "seconds": list(costs.values())}


def describe_sizes(patch: Sequence[int], batch: int) -> str:
    """What a step is, for the table."""
    return f"{'x'.join(map(str, patch))}, batch {batch}, {arithmetic().name}"


def seed_all(seed: int) -> None:
    """What peers draw from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (theirs)
    torch.manual_seed(seed)


def weights_file(job: Job, share: float) -> Path:
    """Weights at this share of the budget."""
    return job.path(f"weights-{round(100 * share)}.pt")


def learn(job: Job, learner: Learner) -> dict[str, Any]:
    """Train for the budget, however often this is begun; return steps, CPU-seconds, and both at each of SHARES."""
    newest = job.path("state.pt")
    done: dict[str, Any] = {"steps": 0, "cpu_seconds": 0.0, "starts": 0, "kept": []}
    if newest.exists():
        state = torch.load(newest, weights_only=False)
        done = state["done"]
        learner.load(state["learner"])
    clock, saved_at = Clock(done["cpu_seconds"]), 0.0
    done["starts"] += 1
    if done["steps"]:
        seed_all(1000 * job.seed + done["steps"])  # else what was drawn before a kill would be drawn again
    while (share := _share(job, done["steps"], clock.spent())) < 1:
        if _is_short(job, done["steps"], share):
            return {"steps": round(done["steps"] / share), "short": True, "cpu_seconds": clock.spent(), "kept": []}
        learner.step(share)
        done["steps"] += 1
        done["cpu_seconds"] = clock.spent()
        share = _share(job, done["steps"], done["cpu_seconds"])
        for due in SHARES[len(done["kept"]) :]:
            if share >= due:
                _save(weights_file(job, due), learner.state()["weights"])
                done["kept"].append({"share": due, "steps": done["steps"], "cpu_seconds": done["cpu_seconds"]})
        if clock.spent() - saved_at > _SECONDS_BETWEEN_STATES:
            done["cpu_seconds"] = saved_at = clock.spent()
            _save(newest, {"done": done, "learner": learner.state()})
    newest.unlink(missing_ok=True)
    return {**done, "cpu_seconds": clock.spent()}


def _share(job: Job, steps: int, spent: float) -> float:
    if job.steps is not None:
        return steps / job.steps
    assert job.cpu_seconds is not None  # a budget is one of the two
    return spent / job.cpu_seconds


def _is_short(job: Job, steps: int, share: float) -> bool:
    """Whether the run would end before SHORT steps; the first step, which sets things up, is not asked."""
    if job.short_too or job.steps is not None or steps < _STEPS_BEFORE_SHORT or share < _SHARE_BEFORE_SHORT:
        return False
    return steps / share < SHORT


def _save(file: Path, values: object) -> None:
    unfinished = file.with_name(f"{file.name}.unfinished")
    torch.save(values, unfinished)
    unfinished.replace(file)
