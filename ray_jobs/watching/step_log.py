"""The figures of an epoch's steps, each written once, and their mean loss."""

import math
from collections.abc import Mapping
from typing import Any

from models import StepResult
from ray_jobs.on_ray.session import Session, mean_over_ranks
from ray_jobs.watching.event_file import EventFile


class StepLog:
    """What the steps of an epoch came to, written to `events`."""

    def __init__(self, session: Session, events: EventFile) -> None:
        self._session, self._events = session, events
        self._losses: list[float] = []  # of this rank, of the epoch's steps in this start of the run
        self._losses_before: list[float] = []  # of all ranks, of the epoch's steps in earlier starts
        self._last_step: dict[str, float] = {}  # what was written of it
        self._learning_rate = self._gradient_norm = 0.0  # of the last step
        self._skipped = 0  # steps without an update, in this start

    def note(self, result: StepResult, *, step: int, learning_rate: float) -> None:
        """Write a step's figures as events."""
        self._learning_rate, self._gradient_norm = learning_rate, result.gradient_norm
        self._losses.append(result.loss)
        self._skipped += not result.taken
        figures = {"loss/step": result.loss, "learning_rate": learning_rate, "gradient_norm": result.gradient_norm}
        self._events.scalars(figures, step)
        self._last_step = figures

    def write_last_again(self, step: int) -> None:
        """Write the last step's events anew: an earlier start's are void from its number on."""
        self._events.scalars(self._last_step, step)

    def latest(self) -> dict[str, float]:
        """The last step on this rank, as on_ray/live_metrics.py names it; no loss before the first."""
        known = {
            "learning_rate": self._learning_rate,
            "gradient_norm": self._gradient_norm,
            "skipped_steps": self._skipped,
        }
        return known | {"loss": self._losses[-1]} if self._losses else known

    def end_epoch(self) -> float:
        """Return the epoch's mean loss over its steps and the ranks. Every rank calls it."""
        losses = self._over_ranks()
        self._losses, self._losses_before = [], []
        return math.fsum(losses) / len(losses) if losses else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Plain values for an exact resume. Every rank must call it."""
        return {"losses": self._over_ranks(), "learning_rate": self._learning_rate, "last_step": self._last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called: the epoch's mean loss will be that of a run left alone, bit for bit."""
        self._losses = []
        self._losses_before, self._learning_rate = list(state["losses"]), state["learning_rate"]
        self._last_step = dict(state.get("last_step", {}))  # checkpoints of earlier versions say nothing of it

    def _over_ranks(self) -> list[float]:
        """The epoch's losses so far, a mean over the ranks for each step; equal however a run was cut into starts."""
        return self._losses_before + mean_over_ranks(self._losses, self._session)
