"""What is printed at the end of a run."""

import io
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.watching.summary import print_summary
from storage.labels.tasks import GLI_2021_TASK, TASKS

ADVICE = "compute-bound, as it should be: a sentence that is longer than a narrow log is wide"


def printed(regions: Sequence[str], width: int, **said: Any) -> list[str]:
    scores = dict.fromkeys((*regions, "mean"), 0.5)
    part: dict[str, Any] = {"cases": 2, "iou": scores, "dice": scores, "threshold": dict.fromkeys(regions, 0.4)}
    if (plain := said.pop("plain", None)) is not None:
        part["plain"] = {kind: {"mean": plain} for kind in ("iou", "dice")}
    seconds = {"wait": 1.0, "forward": 29.0, "backward": 60.0, "validation": 10.0}
    speed = {"patches_per_second": 4.0, "data_wait_fraction": 0.01, "world_size": 2, "device": "cpu"}
    summary = {
        "run": "trial",
        "validation": part,
        "test": part,
        "baseline_iou": scores,
        "throughput": speed | {"precision": "float32"},
        "time": {"seconds": seconds, "bound_by": "compute", "advice": ADVICE},
        **dict.fromkeys(("store", "folder", "checkpoint"), "somewhere"),
        **said,
    }
    written = io.StringIO()
    print_summary(summary, Console(file=written, width=width))
    return written.getvalue().splitlines()


def test_the_summary_says_where_the_time_went_and_what_to_do() -> None:
    lines = printed(GLI_2021_TASK.region_names, 70)
    (forward,) = [line for line in lines if "forward" in line]
    assert forward.split() == ["│", "forward", "│", "29.0", "│", "29.0%", "│"]
    assert ADVICE in lines


def test_six_regions_have_a_whole_line_each_on_a_terminal_of_80_columns() -> None:
    regions = TASKS["gli-2024"].region_names
    lines = [line.replace("│", " ").split() for line in printed(regions, 80)]
    found = [line for line in lines if line and line[0] in regions]
    assert found == [[region, "0.400", *["0.500"] * 5] for region in regions]


@pytest.mark.parametrize("tested", [True, False])
def test_without_validation_it_says_what_is_not_known(*, tested: bool) -> None:
    said: dict[str, Any] = {"validation": None, "baseline_iou": None, "thresholds": {"WT": 0.5, "TC": 0.5}}
    if not tested:
        said["test"] = None
    lines = printed(("WT", "TC"), 100, **said)
    found = [line.replace("│", " ").split() for line in lines]
    assert ["WT", "0.500", *(["0.500", "0.500"] if tested else [])] in found
    text = " ".join(" ".join(lines).split())
    assert f"no validation and {'2' if tested else 'no'} test cases; nothing was chosen: the last epoch" in text
    assert "other thresholds would be better is not known" in text and "Baseline" not in text


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        (
            {},
            "thresholds and epoch chosen by IoU on validation.",
        ),  # an earlier version's run
        ({"objective": "dice"}, "thresholds and epoch chosen by Dice on validation."),
        ({"config": {"thresholds": [0.5]}}, "thresholds as given, epoch chosen by IoU on validation."),
        (
            {"decision": {"said": []}},
            "each validation case scored by what the others decide, test cases by what all do; epoch chosen by IoU",
        ),
    ],
)
def test_the_summary_names_its_rules_and_what_was_maximised(said: dict[str, Any], choice: str) -> None:
    text = " ".join(" ".join(printed(GLI_2021_TASK.region_names, 100, **said)).split())
    assert choice in text
    assert "IoU and Dice by plain rules: means over cases, 1 where label and prediction are empty" in text


def test_the_decision_is_said_and_plain_scores_stand_beside_it() -> None:
    said = ["Decision: ET empty below 50 mm3 in all; IoU +0.100", "No validation case has RC: there 0.5 stays"]
    lines = printed(GLI_2021_TASK.region_names, 160, decision={"said": said}, plain=0.25)
    assert [line for line in lines if line.strip() in said] == said
    assert "Plain (0.5, all is kept): mean IoU on validation 0.250, test 0.250." in lines
    assert not [line for line in printed(GLI_2021_TASK.region_names, 160) if line.startswith(("Decision", "Plain"))]
