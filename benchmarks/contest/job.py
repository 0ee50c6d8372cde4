"""One run of a contest, as the program that does it is told, and the files by which each knows what is done already.

A phase (prepare, train, predict) has happened when its file is there; it is written last, whole or not at all.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.contest.clock import Clock
from benchmarks.report import replace_json

Phase = Callable[["Job"], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train on, for how long, and where everything lies. Budget: CPU-seconds, or steps."""

    folder: str
    """Of this run: weights and predictions."""
    shared: str
    """Of all runs: the store, nnU-Net's folders, MONAI's cached cases."""
    source: str
    fold: int = 0
    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    cpu_seconds: float | None = None
    steps: int | None = None
    seed: int = 0
    short_too: bool = False
    """Go on where the budget would end before SHORT steps."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the program is told of the method."""

    @classmethod
    def read(cls, file: Path) -> Self:
        """The inverse of `write`."""
        values = json.loads(file.read_text())
        return cls(**values | {name: tuple(values[name]) for name in ("train", "test") if name in values})

    def write(self, file: Path) -> None:
        """As JSON."""
        write_whole(file, asdict(self))

    @property
    def store(self) -> str:
        """The converted cases."""
        return str(Path(self.shared) / "cases.zarr")

    def path(self, *parts: str) -> Path:
        """A place in this run's folder."""
        return Path(self.folder, *parts)

    def predictions(self, share: float) -> Path:
        """Where the segmentations of the weights at this share of the budget go."""
        return self.path(f"predictions-{round(100 * share)}")


def write_whole(file: Path, values: Mapping[str, Any]) -> None:
    """Write JSON that is there whole or not at all, and make its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_json(values, file)


def run_program(phases: Mapping[str, Phase]) -> None:
    """The program's command line: PHASE JOB RESULT. Writes what the phase says and the CPU-seconds that it took."""
    name, job, result = sys.argv[1:]
    clock = Clock()
    clock.keep_looking()
    values = phases[name](Job.read(Path(job)))
    write_whole(Path(result), {"cpu_seconds": clock.spent(), "counted_by": clock.how, **values})
    sys.stdout.flush()
    os._exit(0)  # what a peer left running goes with its group
