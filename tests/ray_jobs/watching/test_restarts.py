"""What a loss cost, by the marks that a run leaves."""

from pathlib import Path

import pytest

from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.settings.prices import Machine
from ray_jobs.watching.ledger import Ledger, add_up_folds
from ray_jobs.watching.restarts import Mark, Restarts
from ray_jobs.watching.summary import describe_costs

START: list[Mark] = [("begun", 0, 0), ("ready", 0, 1), ("batch", 0, 2), ("step", 1, 3), ("step", 12, 14)]
SPOT = Machine(kind="g4dn.xlarge", spot=True)


def come_back(at: float, *, from_step: int) -> list[Mark]:
    """Workers that begin at `at`, and do a step each second."""
    steps: list[Mark] = [("step", from_step + 1 + number, at + 10 + number) for number in range(4)]
    return [("begun", 0, at), ("ready", from_step, at + 2), ("batch", from_step, at + 9), *steps]


def test_without_notice_what_was_done_since_the_checkpoint_is_done_again() -> None:
    (restart,) = Restarts().take(
        [*START, ("saved", 0, 20), ("lost", 0, 34), ("lost", 0, 35), *come_back(50, from_step=10)]
    )
    parts = {"noticed": 20, "workers": 16, "restored": 2, "cache": 7, "first step": 1, "again": 1}
    assert {name: seconds for name, seconds in restart.seconds.items() if seconds} == parts
    assert (restart.notice, restart.steps_again, restart.lost) == (False, 2, 47)
    assert str(restart) == (
        "workers were started again without notice: 47 s lost (noticed 20, workers 16, restored 2, cache 7, "
        "first step 1, again 1), 2 steps done twice"
    )


def test_with_a_notice_nothing_is() -> None:
    marks: list[Mark] = [("notice", 0, 8), ("left", 0, 16), ("lost", 0, 20)]
    (restart,) = Restarts().take([*START, *marks, *come_back(50, from_step=12)])
    parts = {"checkpoint": 2, "workers": 34, "restored": 2, "cache": 7, "first step": 1}
    assert {name: seconds for name, seconds in restart.seconds.items() if seconds} == parts
    assert (restart.notice, restart.steps_again) == (True, 0)


def test_a_second_loss_before_the_run_is_as_far_again_is_a_second_restart() -> None:
    restarts = Restarts()
    assert restarts.take([*START, ("lost", 0, 15), *come_back(20, from_step=4)]) == []
    first, second = restarts.take([("lost", 0, 40), *come_back(50, from_step=4), ("step", 12, 99)])
    assert (first.steps_again, second.steps_again) == (8, 8)
    assert first.seconds["again"] == 3
    assert second.seconds["noticed"] == 7


def test_workers_that_came_to_no_step_are_no_further_restart() -> None:
    marks: list[Mark] = [("lost", 0, 15), ("begun", 0, 20), ("ready", 10, 21), ("lost", 0, 22)]
    (restart,) = Restarts().take([*START, *marks, *come_back(50, from_step=12)])
    assert restart.seconds["workers"] == 35


def test_a_start_is_no_restart() -> None:
    assert Restarts().take(START) == []


def test_the_ledger_goes_on_where_an_earlier_command_ended(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "run")
    first = Ledger(folder)
    assert first.take([], [], 0.0) == []  # no workers yet: nothing is counted
    first.take(START, [SPOT, SPOT], 1000.0)
    (_,) = first.take([("lost", 0, 34), *come_back(50, from_step=10)], [SPOT, SPOT], 4600.0)
    first.write()
    hour = 2 * (0.252 + 0.021)
    assert first.dollars == pytest.approx(hour)
    assert str(first) == f"${hour:.2f} so far, ${hour:.2f} an hour"
    second = Ledger(folder)
    second.take([], [SPOT], 0.0)
    second.take([], [SPOT], 3600.0)
    assert second.dollars == pytest.approx(1.5 * hour)
    summary = second.summary()
    assert (summary["restarts"]["count"], summary["restarts"]["steps_again"]) == (1, 2)
    assert summary["restarts"]["dollars_lost"] == pytest.approx(hour * 47 / 3600)
    assert describe_costs(summary)[0] == "restarts: 1, 0.8 minutes and $0.01 lost, 2 steps done twice"
    assert describe_costs(summary)[1].startswith("cost: $0.82 for 2.00 hours of workers (")


def test_folds_cost_together_what_each_did(tmp_path: Path) -> None:
    folds = []
    for name in ("fold-0", "fold-1"):
        ledger = Ledger(RunFolder(str(tmp_path), name))
        ledger.take(START, [SPOT], 0.0)
        ledger.take([("lost", 0, 34), *come_back(50, from_step=10)], [SPOT], 3600.0)
        folds.append(ledger.summary())
    both = add_up_folds([*folds, {"run": "of an earlier version"}])
    assert (both["restarts"]["count"], both["restarts"]["steps_again"]) == (2, 4)
    for kind, name in (("cost", "dollars"), ("cost", "seconds"), ("restarts", "dollars_lost")):
        assert both[kind][name] == pytest.approx(2 * folds[0][kind][name])
    assert add_up_folds([{"run": "of an earlier version"}]) == {}
    folds[0]["cost"]["dollars"] = None
    assert add_up_folds(folds)["cost"]["dollars"] is None


def test_where_a_price_is_not_known_nothing_is_counted(tmp_path: Path) -> None:
    ledger = Ledger(RunFolder(str(tmp_path), "run"))
    for now in (0.0, 3600.0):
        ledger.take([], [SPOT, None], now)
    assert ledger.dollars is None
    assert str(ledger) == ""
    assert "dollars" not in ledger.figures()
    assert describe_costs(ledger.summary()) == []
