"""What a run has cost in all its starts: its machines, by their list prices, and what restarts lost (spent.json)."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.settings.prices import SNAPSHOT, Machine
from ray_jobs.watching.restarts import Mark, Restart, Restarts, sum_up_restarts

SPENT = "spent.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """What a command's runs may cost together: dollars in all their starts, and dollars an hour."""

    dollars: float | None
    dollars_an_hour: float | None

    def reached(self, ledgers: Collection["Ledger"]) -> str | None:
        """Return why the runs have to stop; None where they may go on, or where a price turned out not to be known."""
        spent = sum(ledger.dollars or 0.0 for ledger in ledgers)
        if self.dollars is not None and spent >= self.dollars:
            return f"${spent:.2f} of --max-cost {self.dollars:g} are spent"
        rate = sum(ledger.rate or 0.0 for ledger in ledgers)
        if self.dollars_an_hour is not None and rate > self.dollars_an_hour:
            return f"the workers cost ${rate:.2f} an hour, --max-cost-an-hour is {self.dollars_an_hour:g}"
        return None


class Ledger:
    """A run's costs, from when its workers had first begun, the time of restarts included.

    Counted are the machines of the workers that there were last; neither the head nor what machines take to start.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self.run = folder, folder.name
        before = folder.read(SPENT) or {}
        self._each: list[dict[str, Any]] = list(before.get("restarts", ()))
        self._seconds, self._dollars = before.get("seconds", 0.0), before.get("dollars", 0.0)
        self._restarts = Restarts()
        self._counted: float | None = None  # until when
        self.rate: float | None = None  # dollars an hour, where the price of all machines is known
        self.machines: list[Machine | None] = []

    @property
    def dollars(self) -> float | None:
        """What the run has cost so far; None where a price is not known."""
        return self._dollars

    def take(self, marks: Iterable[Mark], machines: Sequence[Machine | None], now: float) -> list[Restart]:
        """Take what came to the board until `now`; return the restarts that are over by it."""
        if self._counted is not None:
            self._seconds += now - self._counted
            if self._dollars is not None:
                self._dollars = None if self.rate is None else self._dollars + self.rate * (now - self._counted) / 3600
        self.machines = list(machines)
        prices = [None if machine is None else machine.dollars for machine in machines]
        known = [price for price in prices if price is not None]
        self.rate = sum(known) if prices and len(known) == len(prices) else None
        self._counted = now if machines else None
        over = self._restarts.take(marks)
        self._each += [self._priced(restart) for restart in over]
        return over

    def end(self, now: float) -> None:
        """The workers are gone: count no further."""
        self.take([], [], now)

    def write(self) -> None:
        """Write spent.json. Raises InputError."""
        figures = {"seconds": round(self._seconds, 1), "dollars": self._dollars, "restarts": self._each}
        self._folder.write(SPENT, figures)

    def summary(self) -> dict[str, Any]:
        """What summary.json says of it."""
        return sum_up_costs([(self._seconds, self._dollars)], self._each)

    def figures(self) -> dict[str, float]:
        """As on_ray/live_metrics.py names them."""
        lost = self.summary()["restarts"]
        known = {"restarts": lost["count"], "steps_again": lost["steps_again"], "lost_seconds": lost["seconds_lost"]}
        if self._dollars is not None and self.rate is not None:
            known |= {"lost_dollars": lost["dollars_lost"], "dollars": self._dollars, "dollars_an_hour": self.rate}
        return known

    def __str__(self) -> str:
        """For the line that shows how a run stands; nothing where a price is not known."""
        if self._dollars is None or self.rate is None:
            return ""
        return f"${self._dollars:.2f} so far, ${self.rate:.2f} an hour"

    def _priced(self, restart: Restart) -> dict[str, Any]:
        dollars = None if self.rate is None else self.rate * restart.lost / 3600
        seconds = {name: round(value, 2) for name, value in restart.seconds.items()}
        return {**dataclasses.asdict(restart), "seconds": seconds, "dollars": dollars}


def sum_up_costs(spent: Sequence[tuple[float, float | None]], restarts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What summary.json says of the seconds and dollars of one run or several, and of all their restarts."""
    dollars = add_up_known([each for _, each in spent])
    lost = None if dollars is None else add_up_known([each["dollars"] for each in restarts])
    return {
        "restarts": {**sum_up_restarts(restarts), "dollars_lost": lost},
        "cost": {"seconds": round(sum(seconds for seconds, _ in spent), 1), "dollars": dollars, "prices": SNAPSHOT},
    }


def add_up_folds(summaries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The same of a cross-validation, by the summaries of its folds; earlier versions wrote nothing of it there."""
    known = [each for each in summaries if "cost" in each]
    spent = [(each["cost"]["seconds"], each["cost"]["dollars"]) for each in known]
    return sum_up_costs(spent, [restart for each in known for restart in each["restarts"]["each"]]) if known else {}


def add_up_known(dollars: Sequence[float | None]) -> float | None:
    """Their sum; None where one is not known."""
    known = [each for each in dollars if each is not None]
    return sum(known) if len(known) == len(dollars) else None
