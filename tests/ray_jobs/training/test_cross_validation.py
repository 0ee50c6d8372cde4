"""A cross-validation as one command: what it trains, goes on with and says; once whole, with workers."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.evaluation.pooled import decide_together
from ray_jobs.settings.config import TrainConfig, default_run_name, run_identity
from ray_jobs.training import cross_validation, job, planning, side_by_side
from ray_jobs.training.gentle_stop import Stop
from ray_jobs.training.planning import Decided
from storage import CohortStore, InputError, SplitConfig, open_store, split_cohort

ROOT = Path(__file__).parents[3]
FOLDS = 3
PATIENCE_SECONDS = 240


class Trainings:
    """Stands where workers would train: writes down which runs were asked for and returns scores of their cases."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.plans: list[Any] = []
        self.answers: dict[str, dict[str, Any]] = {}

    def fit(self, plan: Any, folder: RunFolder, **_: Any) -> dict[str, Any]:
        self.asked.append(folder.name)
        self.plans.append(plan)
        if folder.name in self.answers:
            return self.answers[folder.name]
        scores = {kind: {"WT": 0.5, "mean": 0.5} for kind in ("iou", "dice")}
        cases = plan.splits.validation
        said = {"rules": "plain", "objective": "iou", "checkpoint": f"{folder.uri}/c", "throughput": {}, "test": None}
        part = {"cases": len(cases), "bad_cases": {}, "threshold": {"WT": 0.4}, **scores}
        part["by_case"] = part["by_case_at_half"] = dict.fromkeys(cases, scores)
        return {**said, "config": dataclasses.asdict(plan.config), "validation": part}


class Silent:
    """Shows no progress."""

    board = over_limit = None

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask_to_stop(self) -> None:
        pass


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """No worker and no Ray: what is trained is written down."""
    made = Trainings()
    monkeypatch.setattr(side_by_side, "fit", made.fit)
    monkeypatch.setattr(side_by_side, "TrainingProgress", Silent)
    monkeypatch.setattr(side_by_side, "git_commit", lambda: "none")
    # Without evidence there is nothing to decide together by: that is tests/ray_jobs/evaluation/test_pooled.py's.
    monkeypatch.setattr(cross_validation, "find_checkpoint", lambda _: SimpleNamespace(has=lambda _: False))
    monkeypatch.setattr(planning, "refuse_hidden_folder", lambda *_: None)
    monkeypatch.setattr(planning, "choose_workers", lambda *_, **__: (1, False))
    monkeypatch.setattr(planning, "most_workers", lambda **_: 1)
    return made


@pytest.fixture
def run(
    trainings: Trainings, small_config: TrainConfig, phantom_store: CohortStore, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Do what train.py does between its command line and its tables."""

    def run(*, fold: int | None = None, name: str | None = "cv", **changes: Any) -> dict[str, Any]:
        splits = SplitConfig(folds=FOLDS, fold=fold)
        config = dataclasses.replace(
            small_config, store=phantom_store.uri, runs=str(tmp_path), name=name, splits=splits, **changes
        )
        return job.train_run(config, Console(file=io.StringIO()), Stop())

    return run


def test_every_case_is_scored_once_by_the_fold_that_did_not_train_on_it(
    run: Callable[..., dict[str, Any]], trainings: Trainings, phantom_store: CohortStore, tmp_path: Path
) -> None:
    summary = run()
    assert trainings.asked == ["cv/fold-0", "cv/fold-1", "cv/fold-2"]
    assert set(summary["by_case"]) == {info.case_id for info in phantom_store.infos() if info.labelled}
    for case_id, scored in summary["by_case"].items():
        for fold, plan in enumerate(trainings.plans):
            assert (case_id in plan.splits.validation) == (fold == scored["fold"])
            assert (case_id in plan.splits.train) == (fold != scored["fold"])
    assert json.loads((tmp_path / "cv" / "summary.json").read_text()) == summary
    assert [each["run"] for each in summary["folds"]] == trainings.asked
    # What memory settles is settled once.
    assert {plan.settled_in for plan in trainings.plans} == {str(tmp_path / "cv")}

    assert run() == summary and len(trainings.asked) == FOLDS  # finished: at once


@pytest.mark.parametrize("name", ["cv", None])
def test_fold_by_fold_is_the_same_run(
    name: str | None, run: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    first = run(fold=2, name=name)
    whole, _, fold = first["run"].partition("/")
    assert fold == "fold-2" and "out_of_fold" not in first
    assert run(fold=0, name=name)["run"] == f"{whole}/fold-0"
    last = run(fold=1, name=name)  # the one that finishes it sums up
    assert last["run"] == whole and last["out_of_fold"]["cases"] == 6
    assert trainings.asked == [f"{whole}/fold-2", f"{whole}/fold-0", f"{whole}/fold-1"]
    assert run(name=name) == last


def test_what_is_left_is_trained_and_another_configuration_refused(
    run: Callable[..., dict[str, Any]], trainings: Trainings
) -> None:
    run(fold=1)
    run()
    assert trainings.asked == ["cv/fold-1", "cv/fold-0", "cv/fold-2"]
    for fold in (None, 1):
        with pytest.raises(InputError, match="epochs: 2 -> 3"):
            run(fold=fold, epochs=3)


def test_a_fold_that_fails_does_not_keep_the_others_from_training(
    run: Callable[..., dict[str, Any]], trainings: Trainings, tmp_path: Path
) -> None:
    trainings.answers["cv/fold-1"] = {"failed": "gradients are not finite"}
    with pytest.raises(InputError, match=r"^run cv/fold-1 failed: gradients are not finite$"):
        run()
    assert len(trainings.asked) == FOLDS and not (tmp_path / "cv" / "summary.json").exists()
    trainings.answers.clear()
    assert run()["out_of_fold"]["cases"] == 6
    assert trainings.asked[FOLDS:] == ["cv/fold-1"]


def test_a_fold_that_is_stopped_says_where(run: Callable[..., dict[str, Any]], trainings: Trainings) -> None:
    trainings.answers["cv/fold-2"] = {"stopped": "after step 3 of epoch 1"}
    assert run() == {"stopped": "cv/fold-2 after step 3 of epoch 1"}


@pytest.mark.parametrize("named", [True, False])
def test_a_single_fold_of_an_earlier_version_goes_on_in_its_own_folder(
    run: Callable[..., dict[str, Any]],
    trainings: Trainings,
    small_config: TrainConfig,
    phantom_store: CohortStore,
    tmp_path: Path,
    *,
    named: bool,
) -> None:
    config = dataclasses.replace(small_config, splits=SplitConfig(folds=FOLDS, fold=1))
    name = "old" if named else default_run_name(config, phantom_store.digest)
    RunFolder(str(tmp_path), name).claim(run_identity(config, phantom_store.digest))
    assert run(fold=1, name="old" if named else None)["run"] == name
    assert trainings.asked == [name] and (tmp_path / name / "summary.json").is_file()
    if named:
        with pytest.raises(InputError, match=r"splits\.fold: 1 -> 2"):
            run(fold=2, name="old")
        with pytest.raises(InputError, match=r"splits\.fold: 1 -> None"):
            run(name="old")


def test_folds_are_trained_side_by_side_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_validation.ray, "cluster_resources", lambda: {"GPU": 8.0, "CPU": 64.0})

    def at_once(*, use_gpu: bool) -> int:
        decided = Decided(plan=None, store_digest="", regions=(), workers=3, least_workers=3, use_gpu=use_gpu)  # type: ignore[arg-type]
        return cross_validation.most_at_once(decided, 5)

    assert (at_once(use_gpu=True), at_once(use_gpu=False)) == (2, 1)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # which may grow, and where each fold waits for its place
    assert (at_once(use_gpu=True), at_once(use_gpu=False)) == (5, 5)


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")  # for the second start; the first has a cluster of its own
def test_stopped_in_the_middle_and_gone_on_with(
    phantom_store: CohortStore,
    tmp_path: Path,
    run_here: Callable[..., "subprocess.CompletedProcess[str]"],
    small_arguments: Sequence[str],
) -> None:
    arguments = ["--store", phantom_store.uri, "--name", "cv", "--splits.folds", "2", *small_arguments]
    arguments += ["--workers", "1", "--sampling.patches-per-epoch", "144"]  # so that a fold is not over at once
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    del variables["RAY_ADDRESS"]
    folds = [tmp_path / "runs" / "cv" / f"fold-{fold}" for fold in range(2)]
    with (tmp_path / "said").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "ray_jobs" / "train.py"), *arguments],
            cwd=tmp_path, env=variables, stdout=output, stderr=output,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE_SECONDS
        try:
            # The driver has heard of the worker: before that it would end at once.
            while "epoch" not in (said := (tmp_path / "said").read_text()).partition("run cv/fold-0:")[2]:
                assert process.poll() is None and time.monotonic() < until, said
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_SECONDS)
        finally:
            process.kill()
            process.wait()
    said = (tmp_path / "said").read_text()
    assert process.returncode == 143, said
    assert "stopped cv/fold-0 after step" in said and "the same command goes on from there" in said
    assert "Not finished" in (folds[0] / "report.html").read_text() and "is not up to date" not in said
    assert not (folds[1] / "summary.json").exists() and not (tmp_path / "runs" / "cv" / "summary.json").exists()

    done = run_here("train.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on from checkpoint_epoch_000" in done.stdout
    assert "all 6 cases of 6 subjects, out of fold" in done.stdout and "is not up to date" not in done.stdout
    assert 'href="fold-1/report.html"' in (tmp_path / "runs" / "cv" / "report.html").read_text()
    summary = json.loads((tmp_path / "runs" / "cv" / "summary.json").read_text())
    for fold, place in enumerate(folds):
        own = json.loads((place / "summary.json").read_text())["validation"]
        splits = split_cohort(open_store(phantom_store.uri), SplitConfig(folds=2, fold=fold))
        assert (
            set(own["by_case"])
            == set(splits.validation)
            == {case_id for case_id, scored in summary["by_case"].items() if scored["fold"] == fold}
        )
        for case_id in splits.validation:
            assert summary["by_case"][case_id]["iou_at_half"] == own["by_case_at_half"][case_id]["iou"]
        best = CheckpointStore(str(place)).best()
        assert best is not None and best.score == pytest.approx(own["iou"]["mean"])
    # What is chosen is chosen on the cases of all folds.
    together = decide_together(
        [find_checkpoint(str(place)) for place in folds], list(own["threshold"]), summary["objective"]
    )
    assert together is not None
    for case_id, scores in together.by_case.items():
        assert summary["by_case"][case_id]["iou"] == scores["iou"]


@pytest.mark.processes
@pytest.mark.usefixtures("on_shared_head")
def test_folds_side_by_side_on_a_cluster_and_a_prediction_by_all_of_them(
    phantom_store: CohortStore,
    phantom_source: Path,
    tmp_path: Path,
    run_here: Callable[..., "subprocess.CompletedProcess[str]"],
    small_arguments: Sequence[str],
) -> None:
    arguments = ["--store", phantom_store.uri, "--name", "both", "--splits.folds", "2", "--workers", "1"]
    done = run_here("train.py", *arguments, *small_arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    begun, first_end = done.stdout.index("run both/fold-1: "), done.stdout.index("scoring the best epoch")
    assert begun < first_end, done.stdout
    assert "both/fold-0  epoch 2: validation IoU" in done.stdout and "both/fold-1  epoch 2: " in done.stdout

    one = tmp_path / "one"
    one.mkdir()
    (one / "BraTS20_Training_001").symlink_to(phantom_source / "BraTS20_Training_001")
    predicted = run_here(
        "predict.py", "--checkpoint", "runs/both", "--input", "one", "--output", "out", "--no-figures", "--workers", "1"
    )
    assert predicted.returncode == 0, predicted.stdout + predicted.stderr
    (record,) = (tmp_path / "out").glob("*_seg.json")
    made_by = json.loads(record.read_text())["made_by"]
    assert [Path(uri).parent.name for uri in made_by["checkpoints"]] == ["fold-0", "fold-1"]

    alone = run_here("threshold.py", "--checkpoint", "runs/both", "--store", phantom_store.uri)
    assert alone.returncode == 2 and "is a cross-validation of 2: give the folder of a fold" in alone.stderr
