"""What training patches take: the steps of an epoch by a rank's clock, added up over epochs and starts of a run."""

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from ray_jobs.on_ray.session import Session, mean_over_ranks
from ray_jobs.watching.step_clock import STEP_PARTS, StepClock


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spent:
    """Patches trained on, in how many seconds, of which waiting for them: on one rank, or a mean over all."""

    patches: int = 0
    seconds: float = 0.0
    wait: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            patches=self.patches + other.patches, seconds=self.seconds + other.seconds, wait=self.wait + other.wait
        )

    def rates(self) -> dict[str, float]:
        """Throughput, and the share of the time that was waited for data; both 0 where no time was spent."""
        seconds = self.seconds or float("inf")
        return {"patches_per_second": self.patches / seconds, "data_wait_fraction": self.wait / seconds}


class Pace:
    """Counts steps and their time, from the start of an epoch to its last step: validation and checkpoints not.

    `patches` are those of a step, over all ranks.
    """

    def __init__(self, session: Session, clock: StepClock, *, patches: int) -> None:
        self._session, self._clock, self._patches = session, clock, patches
        self.of_run = Spent()  # in the epochs before, in all starts
        self._before = Spent()  # in this epoch's steps of earlier starts
        self.start_epoch()

    def start_epoch(self) -> None:
        """Start the clock."""
        self._steps = 0
        self._started, self._seconds_before = time.perf_counter(), dict(self._clock.seconds)

    def after_step(self) -> None:
        """Count a step."""
        self._steps += 1

    def so_far(self) -> Spent:
        """On this epoch's steps in this start, by this rank's clock."""
        return Spent(
            patches=self._steps * self._patches,
            seconds=time.perf_counter() - self._started,
            wait=self._clock.seconds["wait"] - self._seconds_before["wait"],
        )

    def end_epoch(self) -> Spent:
        """Add the epoch to the run; return what its steps in this start took, over the ranks. Every rank calls it.

        In a start that was resumed after the epoch's last step: what they took in the starts before.
        """
        here, before = self._over_ranks(), self._before
        self.of_run, self._before = self.of_run + before + here, Spent()
        return here if self._steps else before

    def seconds_per_step(self) -> dict[str, float]:
        """The parts of this epoch's steps in this start on this rank, in the mean; empty without steps."""
        before, now = self._seconds_before, self._clock.seconds
        return {part: (now[part] - before[part]) / self._steps for part in STEP_PARTS} if self._steps else {}

    def state_dict(self, *, in_epoch: bool) -> dict[str, dict[str, float]]:
        """Plain values for an exact resume; between two epochs the clock still runs, for the validation.

        Every rank must call it.
        """
        spent = self._before + self._over_ranks() if in_epoch else Spent()
        return {"spent_in_epoch": dataclasses.asdict(spent), "spent": dataclasses.asdict(self.of_run)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; checkpoints of earlier versions say nothing of these."""
        self.of_run, self._before = Spent(**state.get("spent", {})), Spent(**state.get("spent_in_epoch", {}))

    def _over_ranks(self) -> Spent:
        own = self.so_far()
        seconds, wait = mean_over_ranks([own.seconds, own.wait], self._session)
        return Spent(patches=own.patches, seconds=seconds, wait=wait) if own.patches else Spent()
