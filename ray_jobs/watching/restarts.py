"""What lost workers cost a run: the time from the last step before to the next one, by part, and steps done twice.

notice      whether the run knew ahead, saved, and waited for the end
noticed     from the last step until Ray knew that workers were lost, with what a validation had done meanwhile
checkpoint  with a notice: from the last step until it was saved
workers     until others had begun: the end of a node that was to go, machines, processes, imports
restored    until the network was built and as in the checkpoint
cache       until the first batch was there
first step  that step
again       until the run had come as far as before

All by one clock, that of the driver's machine, as the run's marks come in.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PARTS = ("noticed", "checkpoint", "workers", "restored", "cache", "first step", "again")

Mark = tuple[str, int, float]
"""What a run came to, after how many steps in all, and when: on_ray/session.py's Moment."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restart:
    """Workers that were started again after others had done steps."""

    notice: bool
    steps_again: int
    seconds: Mapping[str, float]

    @property
    def lost(self) -> float:
        """Seconds from the last step before until the run was beyond it."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.seconds.items() if seconds >= 0.5)
        ahead = "after a notice" if self.notice else "without notice"
        return (
            f"workers were started again {ahead}: {self.lost:.0f} s lost ({parts or 'no part of a second'}), "
            f"{describe_steps(self.steps_again)} done twice"
        )


class Restarts:
    """A run's restarts, by its marks in the order in which they came."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None  # the last step: its number and when
        self._furthest = 0
        self._notice = False
        self._since: dict[str, Mark] = {}  # the moments since that step
        self._open: tuple[Restart, int, float] | None = None  # until the run is as far as this step; since when

    def take(self, marks: Iterable[Mark]) -> list[Restart]:
        """Take further marks; return the restarts that are over by them."""
        over: list[Restart] = []
        for mark in marks:
            moment, step, now = mark
            if moment == "step":
                over += self._step(step, now)
            elif moment == "notice":
                self._notice = True
            elif moment in ("lost", "left"):
                self._since.setdefault(moment, mark)
            elif moment != "saved":
                if moment == "begun":  # again, where the workers before came to no step
                    over += self._close()
                self._since[moment] = mark
        return over

    def _step(self, step: int, now: float) -> list[Restart]:
        over: list[Restart] = []
        if self._last is not None and "begun" in self._since:
            again = max(0, self._furthest - self._since["ready"][1])
            parts = self._parts(self._last[1], now)
            self._open = Restart(notice=self._notice, steps_again=again, seconds=parts), self._furthest, now
        self._last, self._furthest, self._since = (step, now), max(step, self._furthest), {}
        if self._open is not None and step >= self._open[1]:
            over = self._close()
        return over

    def _parts(self, last: float, now: float) -> dict[str, float]:
        when = {moment: time for moment, (_, _, time) in self._since.items()}
        saved = when.get("left", last)
        lost = saved if "left" in when else when.get("lost", last)
        ends = (lost if saved == last else last, saved, when["begun"], when["ready"], when["batch"], now)
        parts, before = dict.fromkeys(PARTS, 0.0), last
        for name, end in zip(PARTS[:-1], ends, strict=True):
            parts[name] = max(0.0, end - before)
            before = max(before, end)
        return parts

    def _close(self) -> list[Restart]:
        """The restart under way, as far as it came."""
        if self._open is None or self._last is None:
            return []
        restart, _, since = self._open
        self._open, self._notice = None, False
        return [dataclasses.replace(restart, seconds={**restart.seconds, "again": self._last[1] - since})]


def sum_up_restarts(restarts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What summary.json says of them, from their JSON."""
    return {
        "count": len(restarts),
        "steps_again": sum(each["steps_again"] for each in restarts),
        "seconds_lost": sum(sum(each["seconds"].values()) for each in restarts),
        "each": list(restarts),
    }


def describe_steps(count: int) -> str:
    """Steps in words."""
    return f"{count or 'no'} step{'' if count == 1 else 's'}"
