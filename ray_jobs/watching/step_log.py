"""The losses of an epoch's steps: they stay on the device until it is time for news, and are written once."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from models import StepResult
from ray_jobs.on_ray.session import Session, mean_over_ranks
from ray_jobs.watching.event_file import EventFile


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StepNote:
    """A step whose loss may not be computed yet: the tensor lies on the device."""

    step: int
    result: StepResult
    learning_rate: float


class StepLog:
    """What the steps of an epoch came to, read from the device some at a time and written to `events`."""

    def __init__(self, session: Session, events: EventFile) -> None:
        self._session, self._events = session, events
        self._pending: list[_StepNote] = []
        self._losses: list[float] = []  # of this rank, of the epoch's steps in this start of the run
        self._losses_before: list[float] = []  # of all ranks, of the epoch's steps in earlier starts
        self._last_step: dict[str, float] = {}  # what was written of it
        self._learning_rate = self._gradient_norm = 0.0  # of the last step that was read
        self._skipped = 0  # steps without an update, in this start

    def note(self, result: StepResult, *, step: int, learning_rate: float) -> None:
        """Note a step, without a look at the device."""
        self._pending.append(_StepNote(step=step, result=result, learning_rate=learning_rate))
        self._skipped += not result.taken

    def read(self) -> None:
        """Bring the noted steps to the host, with one wait for the device, and write them as events."""
        if not self._pending:
            return
        values: list[float] = torch.stack([note.result.loss for note in self._pending]).tolist()  # sync point
        for note, loss in zip(self._pending, values, strict=True):
            self._learning_rate, self._gradient_norm = note.learning_rate, note.result.gradient_norm
            figures = {"loss/step": loss, "learning_rate": self._learning_rate, "gradient_norm": self._gradient_norm}
            self._events.scalars(figures, note.step)
            self._last_step = figures
        self._losses += values
        self._pending = []

    def write_last_again(self, step: int) -> None:
        """Write the last step's events anew: an earlier start's are void from its number on."""
        self._events.scalars(self._last_step, step)

    def latest(self) -> dict[str, float]:
        """The last step that was read, on this rank, as on_ray/live_metrics.py names it; no loss before the first."""
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
        self._pending, self._losses = [], []
        self._losses_before, self._learning_rate = list(state["losses"]), state["learning_rate"]
        self._last_step = dict(state.get("last_step", {}))  # checkpoints of earlier versions say nothing of it

    def _over_ranks(self) -> list[float]:
        """The epoch's losses so far, a mean over the ranks for each step; equal however a run was cut into starts."""
        self.read()
        return self._losses_before + mean_over_ranks(self._losses, self._session)
