"""What makes regions of probabilities: what the checkpoints decided, or the flags."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import Decision, join_decisions
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.predicting.predict_config import PredictConfig, choose_decision, choose_task
from storage import InputError

DECIDED = {"smallest_mm3": (10.0, 20.0, 0.0), "largest_tumour_only": True, "empty_below_mm3": (0.0, 0.0, 200.0)}
THRESHOLDS = (0.5, 0.4, 0.3)


@pytest.fixture
def chosen(make_checkpoint: Callable[..., str]) -> Callable[..., Decision]:
    """What is decided for these checkpoints, each by what it saved beside its thresholds."""

    def choose(*decided: dict[str, Any], **flags: Any) -> Decision:
        uris = [
            make_checkpoint(str(number), seed=number, thresholds=THRESHOLDS, decided=each)
            for number, each in enumerate(decided)
        ]
        checkpoints = [find_checkpoint(uri) for uri in uris]
        config = PredictConfig(checkpoint=tuple(uris), input="in", output="out", **flags)
        return choose_decision(config, checkpoints, choose_task(checkpoints))

    return choose


def test_what_was_saved_is_used(chosen: Callable[..., Decision]) -> None:
    assert chosen(DECIDED) == Decision(thresholds=THRESHOLDS, **DECIDED)


def test_flags_overrule_what_was_saved(chosen: Callable[..., Decision]) -> None:
    flags = {"thresholds": (0.6,) * 3, "smallest_mm3": (0.0,) * 3, "largest_tumour_only": False}
    assert chosen(DECIDED, **flags) == Decision(**flags, empty_below_mm3=DECIDED["empty_below_mm3"])
    assert not any(chosen(DECIDED, empty_below_mm3=()).empty_below)
    for flag in ("thresholds", "smallest_mm3", "empty_below_mm3"):
        name = f"--{flag.replace('_', '-')}"
        with pytest.raises(InputError, match=f"wanted {name} for WT, TC, ET, got 2 numbers"):
            chosen(DECIDED, **{flag: (0.5, 0.5)})


def test_of_several_networks_is_left_out_what_all_of_them_leave_out(chosen: Callable[..., Decision]) -> None:
    other = {**DECIDED, "smallest_mm3": (20.0, 0.0, 0.0), "largest_tumour_only": False}
    wanted = Decision(thresholds=THRESHOLDS, smallest_mm3=(10.0, 0.0, 0.0), empty_below_mm3=DECIDED["empty_below_mm3"])
    assert chosen(DECIDED, other) == wanted
    assert join_decisions([Decision.plain(1), Decision(thresholds=(0.3,))]).thresholds == (0.4,)


def test_a_checkpoint_of_before_has_thresholds_alone(
    chosen: Callable[..., Decision], make_checkpoint: Callable[..., str]
) -> None:
    uri = make_checkpoint("before", seed=0, thresholds=THRESHOLDS)
    (decision,) = Path(uri).glob("*/decision.json")
    decision.with_name("thresholds.json").write_text('{"WT": 0.7, "TC": 0.6, "ET": 0.5}')
    decision.unlink()
    checkpoint = find_checkpoint(uri)
    config = PredictConfig(checkpoint=(uri,), input="in", output="out")
    decided = choose_decision(config, [checkpoint], choose_task([checkpoint]))
    assert decided == Decision(thresholds=(0.7, 0.6, 0.5), smallest_mm3=(0.0,) * 3, empty_below_mm3=(0.0,) * 3)
