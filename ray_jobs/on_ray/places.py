"""The places where a run's workers may be, all of them in one: kinds of machines of a cluster file, each in one zone.

A node type is a place where it has a resource of its own name, as many as a machine holds workers. Asking for that
keeps workers to it; the order of the file is the order in which places are tried.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_jobs.on_ray.monitor_log import NewLines
from storage import InputError

SECONDS_AT_A_PLACE = 180.0  # for machines to be given, not for their set-up; a refusal comes sooner
REFUSED = r"Failed to launch \d+ nodes of type {name}: (.*)"  # Ray 2.60's monitor
CODE = re.compile(r"Node Launch Exception \((\w+)\)")  # AWS's own word


@dataclass(frozen=True, kw_only=True)
class Place:
    """A kind of machine in one zone."""

    name: str  # of the node type, and of its resource
    about: str
    workers_a_machine: int

    def per_worker(self, *, use_gpu: bool) -> dict[str, float]:
        """What a worker asks Ray for, to be here and nowhere else."""
        return {"GPU" if use_gpu else "CPU": 1, self.name: 1}


def find_places(file: Path, *, workers: int, use_gpu: bool) -> list[Place]:
    """Return the places of the cluster file that may hold so many workers; none where it has none, or is not there.

    Raises InputError where all are too small.
    """
    found = _all_places(file, use_gpu=use_gpu)
    if found and (largest := max(found.values())) < workers:
        raise InputError(
            f"wanted a place for {workers} workers with a {'GPU' if use_gpu else 'CPU'} each, the largest of the "
            f"cluster file holds {largest}: give --workers {largest}, or raise max_workers there"
        )
    return [place for place, holds in found.items() if holds >= workers]


def most_workers_at_a_place(file: Path, *, use_gpu: bool) -> int | None:
    """Return how many workers the largest place of the cluster file may hold; None where it has none."""
    return max(_all_places(file, use_gpu=use_gpu).values(), default=None)


def _all_places(file: Path, *, use_gpu: bool) -> dict[Place, int]:
    """Each place and how many workers it may hold, in the file's order."""
    cluster = json.loads(file.read_text()) if file.exists() else {}
    most = int(cluster.get("max_workers", 0))
    found = {}
    for name, kind in (cluster.get("available_node_types") or {}).items():
        has = kind.get("resources", {})
        held = min(int(has.get(name, 0)), int(has.get("GPU" if use_gpu else "CPU", 0)))
        if holds := held * min(kind.get("max_workers", most), most):
            place = Place(name=name, about=describe(kind.get("node_config", {})), workers_a_machine=held)
            found[place] = holds
    return found


def describe(node: dict[str, Any]) -> str:
    """A node type in words: "spot g4dn.xlarge in us-west-2a"."""
    market = "spot" if "InstanceMarketOptions" in node else "on-demand"
    zone = node.get("Placement", {}).get("AvailabilityZone")
    return f"{market} {node.get('InstanceType', 'machines')}" + (f" in {zone}" if zone else "")


class Choice:
    """Which place is asked: one at a time, for all workers, until it has refused or has had its time."""

    def __init__(self, places: Sequence[Place], *, needed: int, now: float, first: int = 0) -> None:
        self._places, self._needed = places, needed
        self._index, self._since = first, now
        self.left: set[str] = set()  # places whose machines are to be given back

    @property
    def place(self) -> Place:
        """Where the workers are, or are to be."""
        return self._places[self._index]

    def ask_anew(self, now: float) -> None:
        """From now on the place has its whole time again: all was well so far."""
        self._since = now

    def look(self, now: float, *, there: int, coming: int, refusal: str | None) -> str | None:
        """Take how many workers the place has room for, and will have, and what it refused since the last look.

        Where that is not enough, all go to the next place: then returns what to say of it.
        """
        if there + coming >= self._needed:
            self.ask_anew(now)  # given; its set-up takes what it takes
            return None
        if len(self._places) == 1 or (refusal is None and now - self._since < SECONDS_AT_A_PLACE):
            return None
        why = refusal or f"no more within {SECONDS_AT_A_PLACE:g} s"
        before = self.place
        self._index, self._since = (self._index + 1) % len(self._places), now
        self.left = (self.left | {before.name}) - {self.place.name}
        return f"{before.about} gives {there + coming} of {self._needed} workers ({why}): all go to {self.place.about}"


class Refusals:
    """What the monitor writes of launches that failed, from now on."""

    def __init__(self, log: Path) -> None:
        self._news = NewLines(log)

    def last(self, name: str) -> str | None:
        """Why machines of that node type were refused since the last time that anybody asked; None where none was."""
        found = re.findall(REFUSED.format(name=re.escape(name)), self._news.read())
        if not found:
            return None
        code = CODE.search(found[-1])
        return code[1] if code else str(found[-1])
