"""The table of bars is made of the records and says where one is missed."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from benchmarks.bars import BARS, Bar, augmentation, collect, head, read_rows, step


def test_every_bar_is_made_of_the_records_that_are_there() -> None:
    there = [name for name in BARS if read_rows(name)]
    rows = [bar.row() for bar in collect(read_rows)]
    assert set(there) == set(BARS), "make bench"
    assert len(rows) == len(there) + 1  # the demo makes two; whole heads would, had ours as shipped the lower Dice
    assert all(row["ours"] and row["bar"] and row["met"] for row in rows)


def test_a_bar_is_of_the_ratio_where_there_is_a_peer_and_else_of_the_figure() -> None:
    assert Bar(what="cost", ours=3.0, peer=4.0, peer_name="P", at_most=0.75).row() == {
        "what": "cost",
        "ours": "3",
        "best peer": "4 (P)",
        "ratio": "0.75",
        "bar": "at most 0.75",
        "met": "yes",
    }
    assert Bar(what="seconds", ours=180.0, at_most=90.0).row()["met"] == "no, 2.00 of it"


def test_speeds_are_the_costs_turned_over() -> None:
    slower = [{"network": "default", "CPU s/sample": 0.2}, {"network": "MONAI DynUNet", "CPU s/sample": 0.2}]
    (bar,) = step(slower, what="tiny", at_least=1.25)
    row = bar.row()
    assert (row["ratio"], row["met"]) == ("1.00", "no, 0.80 of it")
    faster = [slower[0], {"network": "MONAI DynUNet", "CPU s/sample": 0.25}]
    (bar,) = step(faster, what="tiny", at_least=1.25)
    assert bar.row()["met"] == "yes"


def test_a_tutorials_few_augmentations_are_no_peer_of_the_whole_list() -> None:
    rows: Sequence[Mapping[str, Any]] = [
        {"loader": "ours, on the CPU", "cpu_ms": 100.0},
        {"loader": "MONAI, its BraTS tutorial 1", "cpu_ms": 50.0},
        {"loader": "TorchIO 1", "cpu_ms": 300.0},
        {"loader": "nnU-Net v2 2", "cpu_ms": 200.0},
    ]
    (bar,) = augmentation(rows)
    assert (bar.peer, bar.peer_name) == (200.0, "nnU-Net v2 2")


@pytest.mark.parametrize(("dice", "ours"), [(0.8, [1.0]), (0.9, [1.0, 2.0]), (0.95, [1.0])])
def test_a_head_is_compared_with_who_finds_most_and_by_what_finds_as_much(dice: float, ours: list[float]) -> None:
    rows = [
        {"what": "ours, as shipped", "CPU-s a case": 1.0, "mean Dice at 0.5": 0.8},
        {"what": "ours, slower", "CPU-s a case": 2.0, "mean Dice at 0.5": 0.9},
        {"what": "MONAI, cheap", "CPU-s a case": 1.5, "mean Dice at 0.5": 0.7},
        {"what": "MONAI, dear", "CPU-s a case": 3.0, "mean Dice at 0.5": dice},
    ]
    bars = list(head(rows))
    assert [bar.ours for bar in bars] == ours
    assert {bar.peer_name for bar in bars} == {"MONAI, dear"}
    assert f"against {dice:.3f}" in bars[0].what
