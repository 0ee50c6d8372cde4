"""What a machine without a GPU waits for, beside what people would use instead: a table made of the other records.

Nothing is measured here, and no figure is typed: `make bench` runs the benchmarks and ends with this.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.page import RECORDS
from benchmarks.report import report
from benchmarks.settings import Bars

Row = Mapping[str, Any]

# CPU-seconds from the command to the first step before anything was done about them (commit d28bb50, Intel with AMX).
FIRST_STEP_BEFORE = 73.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A figure and what it should be. `ours` and `peer` have one unit; without a peer it is the figure that counts."""

    what: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    at_most: float | None = None
    at_least: float | None = None

    def row(self) -> Row:
        """The table's row: the ratio is ours by the peer's, of speeds (`at_least`) the peer's by ours."""
        ratio = None if self.peer is None else self.ours / self.peer
        if ratio is not None and self.at_least is not None:
            ratio = 1 / ratio
        reached = self.ours if ratio is None else ratio
        met = reached <= self.at_most if self.at_most is not None else reached >= (self.at_least or 0.0)
        bar = f"at most {self.at_most:,g}" if self.at_most is not None else f"at least {self.at_least:,g}"
        return {
            "what": self.what,
            "ours": f"{self.ours:,.4g}",
            "best peer": "" if self.peer is None else f"{self.peer:,.4g} ({self.peer_name})",
            "ratio": "" if ratio is None else f"{ratio:.2f}",
            "bar": bar,
            "met": "yes" if met else f"no, {reached / (self.at_most or self.at_least or 1.0):.2f} of it",
        }


def run(config: Bars) -> None:
    """Print the table, and keep it as a record."""
    report("What a machine without a GPU waits for", [bar.row() for bar in collect(read_rows)], config.json)


def read_rows(name: str) -> Sequence[Row]:
    """The rows of a record; none where that was not made yet."""
    file = RECORDS / f"{name}.json"
    rows: Sequence[Row] = json.loads(file.read_text())["rows"] if file.exists() else ()
    return rows


def collect(records: Callable[[str], Sequence[Row]]) -> list[Bar]:
    """Every bar whose record is there, from its rows."""
    return [bar for name, make in BARS.items() if (rows := records(name)) for bar in make(rows)]


def augmentation(rows: Sequence[Row]) -> Iterator[Bar]:
    """Ours beside the best peer with the same list of augmentations: a tutorial's few are another thing."""
    ours = rows[0]
    peers = [row for row in rows if not row["loader"].startswith("ours") and "tutorial" not in row["loader"]]
    best = min(peers, key=lambda row: float(row["cpu_ms"]))
    yield Bar(
        what="full augmentation of a 4x128³ patch, CPU-ms",
        ours=ours["cpu_ms"],
        peer=best["cpu_ms"],
        peer_name=best["loader"],
        at_most=0.75,
    )


def step(rows: Sequence[Row], *, what: str, at_least: float) -> Iterator[Bar]:
    """The default network beside MONAI's DynUNet of the same widths."""
    cost, peer = {row["network"]: float(row["CPU s/sample"]) for row in rows}, "MONAI DynUNet"
    yield Bar(
        what=f"training step, {what}, CPU-s a sample",
        ours=cost["default"],
        peer=cost[peer],
        peer_name=peer,
        at_least=at_least,
    )


def head(rows: Sequence[Row]) -> Iterator[Bar]:
    """Beside MONAI's of the highest Dice ours as shipped, and the cheapest of ours whose Dice is no lower than that."""
    name, cpu, dice = "what", "CPU-s a case", "mean Dice at 0.5"
    best = max((row for row in rows if row[name].startswith("MONAI")), key=lambda row: float(row[dice]))
    shipped, *others = [row for row in rows if row[name].startswith("ours")]
    equal = min(
        (row for row in (shipped, *others) if row[dice] >= best[dice]), key=lambda row: float(row[cpu]), default=None
    )
    for row in (shipped,) if equal in (shipped, None) else (shipped, equal):
        what = f"{row[name].replace('ours', 'a whole head')}, Dice {row[dice]:.3f} against {best[dice]:.3f}, CPU-s"
        yield Bar(what=what, ours=row[cpu], peer=best[cpu], peer_name=best[name], at_most=0.8)


def demo(rows: Sequence[Row]) -> Iterator[Bar]:
    """The whole of it by the clock, its start by the CPU."""
    of = {row["part"]: row for row in rows}
    yield Bar(what="`make train` after the installation, s", ours=of["all"]["seconds"], at_most=90.0)
    spent = of["all up to the first step"]["CPU-seconds"]
    yield Bar(what="from the command to the first step, CPU-s", ours=spent, at_most=FIRST_STEP_BEFORE / 2)


def installation(rows: Sequence[Row]) -> Iterator[Bar]:
    """All that lies on the disk, ours as make installs it, the peer's as pip does."""
    megabytes = {row["what"]: row["MB"] for row in rows}
    (nnunet,) = [name for name in megabytes if name.startswith("nnU-Net")]
    what = f"installation, MB; {nnunet} takes {megabytes[nnunet]:,}"
    yield Bar(what=what, ours=megabytes["ours"], at_most=2100.0)


def conversion(rows: Sequence[Row]) -> Iterator[Bar]:
    """The command as it is typed."""
    (command,) = [row for row in rows if "cases" in row]
    seconds = command["wall-s per case"] * command["cases"]
    yield Bar(what=f"converting {command['cases']} cases, s", ours=seconds, at_most=6.0)


def opening(rows: Sequence[Row]) -> Iterator[Bar]:
    """Of the largest cohort."""
    (row,) = [row for row in rows if row["what"] == "opening, CPU-s"]
    cases, measured = row["of"].split(" / ")[-1], float(row["measured"].split(" / ")[-1])
    yield Bar(what=f"opening a store of {cases}, CPU-s", ours=measured, at_most=0.3)


# By the record that each is made of.
BARS: dict[str, Callable[[Sequence[Row]], Iterator[Bar]]] = {
    "peers-loader": augmentation,
    "train-step": partial(step, what="tiny 48³", at_least=1.15),
    "train-step-strided": partial(step, what="strided 96³", at_least=1.0),
    "whole-head": head,
    "demo": demo,
    "installation": installation,
    "convert": conversion,
    "growth": opening,
}
