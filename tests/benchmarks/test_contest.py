"""Contests beside peers: what is counted, what survives a kill, and what the tables say. The peers are stand-ins."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import laptop_trials, missing_scans
from benchmarks.contest import race
from benchmarks.contest.clock import GROUP, make_group, read_usage, remove_group, run_counted
from benchmarks.contest.job import Job
from benchmarks.contest.learning import learn, rehearse_layout, weights_file
from benchmarks.contest.methods import METHODS, PARITY, SHARES, SHORT, Method
from benchmarks.contest.ours import EPOCHS, OF_BUDGET, link_scans, plan_steps
from benchmarks.contest.race import Race, compete, deal_splits
from benchmarks.contest.settings import LaptopTrialsBenchmark, MissingScansBenchmark
from benchmarks.contest.table import (
    SETS,
    accuracy_rows,
    missing_scans_rows,
    parity_rows,
    read_records,
    trial_rows,
)
from benchmarks.cost import Cost
from storage import InputError

ROOT = Path(__file__).parents[2]
CASES = [f"case{number:02d}" for number in range(16)]

# Spends half a second in a child that has ended, and as much itself.
SPENDER = """
import subprocess, sys, time
BURN = "import time\\nend = time.process_time() + 0.5\\nwhile time.process_time() < end: pass"
from benchmarks.contest.clock import Clock
clock = Clock()
clock.keep_looking()
subprocess.run([sys.executable, "-c", BURN])
exec(BURN)
open(sys.argv[1], "w").write(str(clock.spent()))
"""


class Stepper:
    """A Learner whose one weight counts its steps; dies at a step where it is told to."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.weight, self.shares, self._dies_at = torch.zeros(1), list[float](), dies_at

    def step(self, share: float) -> None:
        if self.weight == self._dies_at:
            raise KeyboardInterrupt
        self.weight = self.weight + 1
        self.shares.append(share)

    def state(self) -> dict[str, Any]:
        return {"weights": {"weight": self.weight}}

    def load(self, state: Mapping[str, Any]) -> None:
        self.weight = state["weights"]["weight"]


def a_job(folder: Path, **changes: Any) -> Job:
    return replace(Job(folder=str(folder), shared=str(folder), source=""), **changes)


def test_splits_test_each_case_once_and_stay_the_same() -> None:
    first, second = deal_splits(CASES, 2)
    assert [len(part) for part in first] == [12, 4]
    for train, test in (first, second):
        assert sorted((*train, *test)) == CASES
    assert not set(first[1]) & set(second[1])
    assert deal_splits(CASES[::-1], 2) == [first, second]
    with pytest.raises(InputError, match="at least 4 cases"):
        deal_splits(CASES[:3], 1)
    halves = deal_splits(CASES, 2, tested=2)
    assert halves[0] == halves[1][::-1] and len(halves[0][0]) == 8


def test_the_schedule_falls_over_the_budget_and_weights_are_kept_on_the_way(tmp_path: Path) -> None:
    stepper = Stepper()
    done = learn(a_job(tmp_path, steps=8), stepper)
    assert stepper.shares == [step / 8 for step in range(8)]
    assert [kept["steps"] for kept in done["kept"]] == [2, 4, 6, 8]
    assert [int(torch.load(weights_file(a_job(tmp_path), share))["weight"]) for share in SHARES] == [2, 4, 6, 8]


def test_a_killed_training_goes_on_where_its_newest_state_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.contest.learning._SECONDS_BETWEEN_STATES", -1.0)  # after each, however short
    job = a_job(tmp_path, steps=8)
    with pytest.raises(KeyboardInterrupt):
        learn(job, Stepper(dies_at=5))
    again = Stepper()
    done = learn(job, again)
    assert again.shares == [5 / 8, 6 / 8, 7 / 8]
    assert done["starts"] == 2 and done["steps"] == 8 and len(done["kept"]) == len(SHARES)
    assert not job.path("state.pt").exists()


def test_a_training_that_would_be_too_short_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter(range(1000))
    monkeypatch.setattr("benchmarks.contest.learning.Clock.spent", lambda _: float(next(spent)))
    stepper = Stepper()
    done = learn(a_job(tmp_path, cpu_seconds=60.0), stepper)
    assert done["short"] and 0 < done["steps"] < SHORT and len(stepper.shares) <= 5
    spent = iter(range(1000))
    assert "short" not in learn(a_job(tmp_path, cpu_seconds=60.0, short_too=True), Stepper())


def test_our_steps_are_planned_from_what_the_rehearsal_cost(tmp_path: Path) -> None:
    rehearsed = tmp_path / "prepared.json"
    rehearsed.write_text(json.dumps({"seconds_a_step": 2.0, "seconds_around": 82.0}))
    job = a_job(tmp_path, cpu_seconds=1000.0, settings={"rehearsal": str(rehearsed)})
    steps = EPOCHS * plan_steps(job)
    assert 82 + 2 * steps <= OF_BUDGET * 1000 < 82 + 2 * (steps + EPOCHS)
    with pytest.raises(InputError, match="more than the 82 CPU-seconds"):
        plan_steps(replace(job, cpu_seconds=80.0))
    assert plan_steps(a_job(tmp_path, steps=1000)) == 250


def test_a_peer_is_given_the_layout_that_costs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    network, seen = torch.nn.Conv2d(4, 4, 3), list[bool]()

    def cost(step: Callable[[], object]) -> Cost:
        step()
        seen.append(network.weight.is_contiguous())
        return Cost(cpu=2.0 if seen[-1] else 1.0, wall=0.0)

    monkeypatch.setattr("benchmarks.contest.learning.time_call", cost)
    assert rehearse_layout(network, 4, 2)["channels_last"] is True
    assert seen == [True, True, False, False]


@pytest.mark.processes
@pytest.mark.parametrize("grouped", [True, False])
def test_what_ended_children_spent_is_counted(
    tmp_path: Path, *, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if grouped and (group := make_group("test-probe")) is None:
        pytest.skip("no control group can be made here")
    if grouped:
        remove_group(group)
    else:
        monkeypatch.setattr("benchmarks.contest.clock.make_group", lambda _: None)
    result, log = tmp_path / "spent", tmp_path / "log"
    words = [sys.executable, "-c", SPENDER, str(result)]
    assert run_counted(words, name="test-spender", log=log, cwd=ROOT) == 0, log.read_text()
    assert float(result.read_text()) > 0.9  # of 1; a look may miss what came after it


@pytest.mark.processes
def test_what_a_killed_command_left_running_ends_with_its_group() -> None:
    group = make_group("test-left")
    if group is None:
        pytest.skip("no control group can be made here")
    left = subprocess.Popen(["sleep", "1000"])
    (group / "cgroup.procs").write_text(str(left.pid))
    assert make_group("test-left") == group and left.wait() < 0 and read_usage(group) == 0
    remove_group(group)
    assert not group.exists() and GROUP not in os.environ


def scored(dice: float) -> dict[str, dict[str, dict[str, float]]]:
    return {case_id: {"inner": {"dice": dice, "iou": dice / 2}} for case_id in CASES[:4]}


@pytest.mark.processes  # asks git for the commit
def test_a_run_is_done_once_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases: list[str] = []

    def run_phase(_: Method, name: str, job: Job, result: Path) -> dict[str, Any]:
        phases.append(name)
        kept = [{"share": share, "steps": 100 * share, "cpu_seconds": 60 * share} for share in SHARES]
        return {"cpu_seconds": 60.0, "steps": 400, "counted_by": "stand-in", "kept": kept}

    monkeypatch.setattr(race, "phase", run_phase)
    monkeypatch.setattr(race, "score", lambda *_: scored(0.5))
    told = Race(source=tmp_path, folder=tmp_path / "work", records=tmp_path)
    job = a_job(tmp_path, cpu_seconds=60.0, train=tuple(CASES[4:]), test=tuple(CASES[:4]))
    record = compete(told, "ours", METHODS["ours"], job, "run")
    assert record is not None and phases == ["convert", "prepare", "train", *["predict"] * 4]
    written = json.loads(record.read_text())
    assert [kept["mirrored"] for kept in written["curve"]] == [False, False, False, True]
    assert written["split"]["test"] == CASES[:4] and written["within_budget"] and written["commit"]
    assert compete(told, "ours", METHODS["ours"], job, "run") == record and len(phases) == 7


def a_record(method: str, budget: dict[str, float], dice: float, **changes: Any) -> dict[str, Any]:
    curve = [
        {"share": share, "cpu_seconds": 60 * share, "cases": scored(dice * share), "predict_cpu_seconds": 4.0}
        for share in SHARES
    ]
    return {
        "method": method,
        "method_title": method,
        "settings": {"sizes": "small"},
        "budget": budget,
        "seed": 0,
        "split": {"test": CASES[:4]},
        "steps": 400,
        "short": False,
        "within_budget": True,
        "cpu_seconds": {"train": 60.0},
        "curve": curve,
        **changes,
    }


def test_the_table_has_what_is_there_and_says_what_does_not_count() -> None:
    budget = {"cpu_minutes": 1.0}
    records = [
        a_record("ours", budget, 0.8),
        a_record("ours", budget, 0.6),
        a_record("nnunet-3d", budget, 0.0, short=True, steps=16, curve=[]),
        a_record("segresnet", budget, 0.9, within_budget=False),
        a_record("dynunet", {"cpu_minutes": 2.0}, 0.9, steps=SHORT - 1),
    ]
    records[1]["curve"][-1]["cases"] = {f"other {case}": own for case, own in scored(0.6).items()}
    first, second = accuracy_rows(records).values()
    ours, theirs, over = first
    assert ours["Dice"] == 0.7 and ours["IoU"] == 0.35 and ours["splits"] == 2 and ours["counts"] == "yes"
    assert ours["min to 0.5"] == "0.875" and ours["min to 0.7"] == "–"  # the second split never has 0.7
    assert "Dice" not in theirs and "not run" in str(theirs["counts"])
    assert over["ours is ahead by"] == "-0.100 (-0.100 to -0.100), 4 cases"  # of the cases that both have scored
    assert not {"ours is ahead by"} & {*ours, *theirs, *second[0]}
    assert "budget" in str(over["counts"]) and "200" in str(second[0]["counts"])


def test_pairs_are_compared_by_seed_and_case() -> None:
    ours, theirs = PARITY
    steps = {"steps": 1000}
    records = [a_record(ours, steps, 0.7, seed=seed) for seed in (0, 1, 2)]
    records += [a_record(theirs, steps, 0.7 + 0.01 * seed, seed=seed) for seed in (0, 1)]
    ((title, rows),) = parity_rows(records).items()
    assert [round(float(row["difference"]), 3) for row in rows] == [0.0, -0.01]
    assert "-0.005" in title and "8 pairs" in title
    assert parity_rows(records[:3]) == {}


@pytest.mark.processes  # asks git for the commit
def test_a_network_for_any_scans_is_asked_for_each_set_and_others_for_theirs(
    tmp_path: Path, phantom_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six networks' trainings by what they are told, the segmentations they are asked for, and the table of both."""
    phases: list[tuple[str, str, Any]] = []

    def run_phase(method: Method, name: str, job: Job, result: Path) -> dict[str, Any]:
        phases.append((name, method.title, job.settings.get("scans")))
        kept = [{"share": 1.0, "steps": 100, "cpu_seconds": 60.0}]
        return {"cpu_seconds": 60.0, "steps": 100, "counted_by": "stand-in", "kept": kept}

    def iou(job: Job, *_: object) -> Any:
        value = 0.1 * len(job.settings.get("scans", range(4))) + (0.05 if "only" in job.shared else 0)
        return {case_id: {"inner": {"dice": 0.0, "iou": value}} for case_id in job.test}

    monkeypatch.setattr(race, "phase", run_phase)
    monkeypatch.setattr(missing_scans, "phase", run_phase)
    monkeypatch.setattr(race, "score", iou)
    config = MissingScansBenchmark(source=phantom_source, folder=tmp_path / "work", records=tmp_path / "records")
    missing_scans.run(config)
    trained = [title for name, title, _ in phases if name == "train"]
    assert len(trained) == 10 and trained[:2] == ["trained with all scans", "trained with modality dropout"]
    asked = [scans for name, title, scans in phases if name == "predict" and "dropout" in title]
    assert asked == 2 * [None, *(each.split("+") for each in SETS)]
    done = len(phases)
    missing_scans.run(config)
    assert len(phases) == done  # what has a record is not done again
    records = [json.loads(file.read_text()) for file in config.records.iterdir()]
    assert len(records) == 16 and {record["scans"] for record in records} == {"all", *SETS}
    ((_, rows),) = missing_scans_rows(records).items()
    assert [row["scans"] for row in rows] == ["all", *SETS] and {row["cases"] for row in rows} == {6}
    assert rows[0]["difference of IoU"] == "+0.000 (+0.000 to +0.000)"
    assert rows[3]["with dropout"] == 0.2 and rows[3]["difference of IoU"] == "-0.050 (-0.050 to -0.050)"
    assert missing_scans_rows(records[:0]) == {}


@pytest.mark.processes  # asks git for the commit
def test_a_change_of_the_laptop_is_paired_with_the_preset_as_it_is(
    tmp_path: Path, phantom_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[list[str]] = []

    def run_phase(_: Method, name: str, job: Job, result: Path) -> dict[str, Any]:
        if name == "train":
            trained.append(job.settings["flags"])
        return {"cpu_seconds": 60.0, "steps": 100, "counted_by": "x", "kept": [{"share": 1.0, "steps": 100}]}

    def iou(job: Job, *_: object) -> Any:
        value = 0.5 + 0.1 * ("6e-3" in job.settings["flags"]) - 0.1 * bool(job.settings.get("inference"))
        return {case_id: {"inner": {"dice": 0.0, "iou": value}} for case_id in job.test}

    monkeypatch.setattr(race, "phase", run_phase)
    monkeypatch.setattr(race, "score", iou)
    plain = LaptopTrialsBenchmark(source=phantom_source, folder=tmp_path / "work", records=tmp_path / "records")
    faster = replace(plain, name="faster", flags="--optimiser.learning-rate 6e-3")
    for config in (faster, plain, plain):
        laptop_trials.run(config)
    assert trained == 2 * [["--no-dashboard", "--optimiser.learning-rate", "6e-3"]] + 2 * [["--no-dashboard"]]
    ((title, rows),) = trial_rows(read_records(plain.records)).items()
    assert title == "Changes of the preset laptop, 15 CPU-minutes in each of 2 folds"
    assert [(row["change"], row["flags"], row["cases"]) for row in rows] == [
        ("as-it-is", "none", 6),
        ("faster", "--optimiser.learning-rate 6e-3", 6),
    ]
    assert [row["IoU"] for row in rows] == [0.5, 0.6]
    assert rows[1]["difference"] == "+0.100 (+0.100 to +0.100), 6 cases"
    whole = replace(plain, name="whole", inference="--inference.whole True")
    both = replace(faster, inference=whole.inference)
    for wrong in (replace(plain, name="nameless"), replace(faster, name="as-it-is"), replace(plain, batch=1), both):
        with pytest.raises(InputError, match="--inference and a --name"):
            laptop_trials.run(wrong)
    with pytest.raises(InputError, match="records of another change"):
        laptop_trials.run(replace(faster, flags="--optimiser.learning-rate 1e-3"))
    with pytest.raises(InputError, match="15min-as-it-is-fold1of2 has to be trained first"):
        laptop_trials.run(whole)
    for fold in (1, 2):
        lender = tmp_path / "work" / phantom_source.name / f"15min-as-it-is-fold{fold}of2"
        (lender / "weights-100").mkdir()
        (lender / "trained.json").write_text("{}")
    laptop_trials.run(whole)
    for fold in (1, 2):
        assert (tmp_path / "work" / phantom_source.name / f"15min-whole-fold{fold}of2" / "weights-100").is_dir()
    row = next(iter(trial_rows(read_records(plain.records)).values()))[2]
    assert (row["change"], row["flags"], row["IoU"]) == ("whole", "--inference.whole True", 0.4)


def test_scans_that_a_network_may_not_see_are_not_there(tmp_path: Path, phantom_source: Path) -> None:
    name = "BraTS20_Training_001"
    job = a_job(tmp_path, source=str(phantom_source), test=(name,), settings={"scans": ["t1ce"]})
    link_scans(job, tmp_path / "scans")
    assert [file.name for file in (tmp_path / "scans" / name).iterdir()] == [f"{name}_t1ce.nii.gz"]
