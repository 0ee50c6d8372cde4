"""What is printed at the end of a cross-validation."""

import io
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.watching.fold_tables import print_folds
from storage.labels.tasks import TASKS


def printed(*, width: int = 80, **said: Any) -> str:
    regions = (*TASKS["gli-2024"].region_names, "mean")
    means = dict.fromkeys(regions, 0.5)
    scored = {name: {"mean": 0.5, "low": 0.25, "high": 0.75} for name in regions}
    alone = {name: {"mean": 0.625, "low": None, "high": None} for name in regions}
    kinds = ("iou", "dice", "iou_at_half", "dice_at_half")
    summary = {
        **{"run": "cv", "folder": "runs/cv", "store": "here", "objective": "iou", "chosen_on_own_cases": ["epoch"]},
        "folds": [{"fold": number, "cases": 4 + number, "iou": means, "dice": means} for number in range(2)],
        "out_of_fold": {"cases": 9, "subjects": 8, **dict.fromkeys(kinds, scored)},
        "by_grade": {"HGG": {"cases": 8, "iou": scored}, "LGG": {"cases": 1, "iou": alone}},
        "bad_cases": {"X": "its [chunk] is bad"},
        **said,
    }
    written = io.StringIO()
    print_folds(summary, Console(file=written, width=width, markup=False))
    return written.getvalue()


def rows(text: str, first: str) -> list[list[str]]:
    lines = [line.replace("│", " ").split() for line in text.splitlines()]
    return [line[1:] for line in lines if line and line[0] == first]


def test_tables_of_six_regions_are_whole_on_a_terminal_of_80_columns() -> None:
    text = printed()
    assert rows(text, "0") == [["4", *["0.500"] * 7]] and rows(text, "1") == [["5", *["0.500"] * 7]]
    interval = ["0.500", "0.250–0.750"]
    for region in TASKS["gli-2024"].region_names:
        # all cases at the chosen thresholds, at 0.5, and by grade, of which one has a single subject
        assert rows(text, region)[-3:] == [[*interval, *interval], [*interval, *interval], [*interval, "0.625"]]
    assert "all 9 cases of 8 subjects, out of fold" in text and "the same with all thresholds 0.5" in text
    assert "left out X: its [chunk] is bad" in text


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (["epoch", "thresholds"], "chose its epoch and thresholds by IoU on the very cases that it scores"),
        (["epoch"], "chose its epoch by IoU on the very cases that it scores"),
    ],
)
def test_it_says_what_was_chosen_on_the_cases_that_are_scored(chosen: list[str], said: str) -> None:
    text = " ".join(printed(width=200, chosen_on_own_cases=chosen).split())
    assert ("at 0.5 only the epoch was" in text) == (len(chosen) == 2)
    assert said in text and "by plain rules" in text and "bootstrap over subjects" in text


def test_what_is_not_known_is_not_shown() -> None:
    every = {
        "cases": 2,
        "subjects": 2,
        **{kind: {"mean": {"mean": 0.5, "low": 0.4, "high": 1}} for kind in ("iou", "dice")},
    }
    text = printed(out_of_fold=every, by_grade={})
    assert "thresholds 0.5" not in text and "by grade" not in text
