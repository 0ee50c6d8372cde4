"""`make bench` measures all that the page and the table of bars show, in an order in which each finds what it needs."""

from typing import get_args

import pytest

from benchmarks.__main__ import BENCHMARKS, parse
from benchmarks.bars import BARS
from benchmarks.laptop import commands
from benchmarks.page import recorded
from models import CpuKind


def of(kind: CpuKind) -> dict[str, list[str]]:
    return commands("scans", "store", real=True, kind=kind)


COMMANDS = {name: words for kind in get_args(CpuKind) for name, words in of(kind).items()}
# These take hours, finished runs or a GPU, and are typed by hand: the page says how.
BY_HAND = {"real-scans", "decisions", "decisions-552-steps", "decisions-voxelwise", "demo-seeds", "gpu-check"}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_record_has_a_command_that_can_be_typed(name: str) -> None:
    benchmark, *_ = COMMANDS[name]
    assert type(parse([*COMMANDS[name], "--json", f"{name}.json"])) is BENCHMARKS[benchmark]


def test_every_bar_is_measured_before_the_table_is_made() -> None:
    names = list(of("float32"))
    assert set(BARS) < set(names)
    assert names[-1] == "bars"


def test_every_table_of_the_page_is_measured() -> None:
    assert set(recorded()) == set(COMMANDS) | BY_HAND


def test_heads_are_predicted_by_what_the_demo_left() -> None:
    names = list(COMMANDS)
    assert names.index("demo") < names.index("whole-head")
