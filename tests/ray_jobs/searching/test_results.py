"""A search's rows, figure and exported checkpoint, and what its scheduler and progress make of trials, without Ray."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest

from ray_jobs.checkpoints.checkpoint import CURVES, CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.evaluation.validation import ThresholdCurves
from ray_jobs.searching.figure import draw_search, read_curves, save_search_figure
from ray_jobs.searching.job import print_trials
from ray_jobs.searching.results import Pricing, export_best, has_folds, make_row, sort_rows
from ray_jobs.searching.scheduler import read_reports
from ray_jobs.searching.search import build_scheduler
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.searching.trial_progress import SearchProgress
from ray_jobs.settings.config import TrainConfig, run_identity
from ray_jobs.settings.console import open_console
from storage import InputError, Region, SplitConfig
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS, GTV_REGIONS, POST_TREATMENT_REGIONS
from storage.store.objects import Objects

REGIONS = GLI_2021_TASK.region_names

RATE = "optimiser.learning_rate"
FREE = Pricing(price_per_node_hour=None, workers=1, workers_per_node=1)


def scores_of(iou: float) -> dict[str, float]:
    """What a report and a checkpoint's record say of an epoch."""
    names = [f"{kind}_{name}" for kind in ("iou", "dice") for name in (*REGIONS, "mean")]
    return dict.fromkeys(names, iou) | {f"threshold_{region}": 0.5 for region in REGIONS}


def save_checkpoint(run: Path, epoch: int, iou: float) -> None:
    steps = np.linspace(0, 1, 11)
    curves = ThresholdCurves(
        regions=REGIONS, thresholds_T=steps, iou_TR=np.full((11, 3), iou), dice_TR=np.full((11, 3), iou)
    )
    files = {CURVES: json.dumps(curves.to_json()).encode()}
    CheckpointStore(str(run)).save(CheckpointRecord(epoch=epoch, step=0, metrics=scores_of(iou)), files)


@pytest.fixture
def make_result() -> Callable[..., Any]:
    """A trial as Tune gives it back, which reported these IoUs, an epoch each."""

    def make(trial_id: str, rate: float, ious: list[float]) -> Any:
        reports = [
            {"trial_id": trial_id, "epoch": epoch, "time_this_iter_s": 1.0, "patches_per_second": 2.0, **scores_of(iou)}
            for epoch, iou in enumerate(ious, start=1)
        ]
        return SimpleNamespace(metrics_dataframe=pandas.DataFrame(reports), config={RATE: rate}, error=None)

    return make


def open_search(runs: Path) -> RunFolder:
    folder = RunFolder(str(runs), "search")
    folder.claim({})
    return folder


def rows_of(results: list[Any], trials: Path) -> list[dict[str, Any]]:
    return sort_rows([make_row(result, str(trials), FREE, epochs=3, objective="iou") for result in results], "iou")


def test_a_row_has_the_scores_of_the_checkpoint_that_is_exported(
    tmp_path: Path, make_result: Callable[..., Any]
) -> None:
    search = open_search(tmp_path)
    # ASHA stopped the first while its better checkpoint was being written; of the second it is there.
    save_checkpoint(tmp_path / "trials" / "a", 1, 0.2)
    save_checkpoint(tmp_path / "trials" / "b", 2, 0.4)
    rows = rows_of([make_result("a", 1e-3, [0.2, 0.5]), make_result("b", 1e-2, [0.3, 0.4])], tmp_path / "trials")
    assert [(row["values"][RATE], row["iou"]["mean"]) for row in rows] == [(1e-2, 0.4), (1e-3, 0.2)]
    best = export_best(rows, search)
    assert best is not None and best["iou_mean"] == rows[0]["iou"]["mean"] == 0.4
    exported = json.loads((tmp_path / "search" / "best" / "record.json").read_text())
    assert exported["epoch"] == 2 and exported["metrics"]["iou_mean"] == 0.4


def test_a_trial_without_a_checkpoint_is_not_the_best_and_has_no_curves(
    tmp_path: Path, make_result: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    search = open_search(tmp_path)
    save_checkpoint(tmp_path / "trials" / "b", 1, 0.3)
    results = [make_result("a", 1e-3, [0.9]), make_result("b", 1e-2, [0.3])]
    rows = rows_of(results, tmp_path / "trials")
    assert [row["values"][RATE] for row in rows] == [1e-2, 1e-3]
    assert rows[1]["checkpoint"] is None and rows[1]["iou"]["mean"] == 0.9
    best = export_best(rows, search)
    assert best is not None and best["values"] == rows[0]["values"]
    figure = draw_search(rows, GLIOMA_REGIONS, [read_curves(row["run"]) for row in rows], "iou")
    rates, *curves = figure.axes
    assert len(rates.get_lines()[0].get_xdata()) == 2
    assert all(len(axis.get_lines()) == 2 for axis in curves)  # the curve of one trial and its optimum
    print_trials(rows, search, open_console(), "iou")
    said = capsys.readouterr()
    assert "no checkpoint of the trial with learning_rate 0.001" in said.out + said.err


def test_where_no_trial_has_a_checkpoint_there_is_a_picture_and_no_best(
    tmp_path: Path, make_result: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    search = open_search(tmp_path)
    rows = rows_of([make_result("a", 1e-3, [0.9])], tmp_path / "trials")
    assert export_best(rows, search) is None
    save_search_figure(rows, GLIOMA_REGIONS, search, "iou")
    assert (tmp_path / "search" / "search.png").stat().st_size > 5000
    print_trials(rows, search, open_console(), "iou")
    said = capsys.readouterr()
    assert "/best" not in said.out + said.err


@pytest.mark.parametrize("regions", [GTV_REGIONS, POST_TREATMENT_REGIONS])
def test_few_regions_and_many_are_drawn_and_printed(
    regions: Sequence[Region], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(region.name for region in regions)
    scores = {**dict.fromkeys(names, 0.5), "mean": 0.5}
    row = {"values": {RATE: 1e-3}, "status": "finished", "epochs": 3, "patches_per_second": 12.5, "cost": 1.25}
    row |= {"iou": scores, "dice": scores, "threshold": dict.fromkeys(names, 0.25)}
    values_TR = np.full((5, len(names)), 0.5)
    curves = ThresholdCurves(regions=names, thresholds_T=np.linspace(0, 1, 5), iou_TR=values_TR, dice_TR=values_TR)
    rates, *others = draw_search([row], regions, [curves], "iou").axes
    assert [axis.get_title().split(":")[0] for axis in others] == list(names)
    places = [axis.get_subplotspec() for axis in others]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [
        (at // 3, 1 + at % 3) for at in range(len(names))
    ]
    assert len(rates.get_subplotspec().rowspan) == -(-len(names) // 3)
    assert {text.get_text() for text in rates.get_legend().get_texts()} == {"mean, finished", *names}
    monkeypatch.setenv("COLUMNS", "80")
    print_trials([row], open_search(tmp_path), open_console(), "iou")
    lines = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["learning_rate", "0.001", "finished", "3", "0.5000", "12.5", "1.250"] in lines
    assert [line for line in lines if line and line[0] in names] == [
        [name, "0.250", "0.500", "0.500"] for name in names
    ]


def search_of(training: TrainConfig, **fields: Any) -> SearchConfig:
    return SearchConfig(training=training, **fields)


def test_what_has_no_score_to_go_by_is_refused(small_config: TrainConfig) -> None:
    folds = dataclasses.replace(small_config, splits=SplitConfig(folds=3))
    with pytest.raises(InputError, match=r"a trial of 3 folds has no score before its end.*--scheduler none"):
        search_of(folds)
    assert search_of(folds, scheduler="none").training.splits.fold is None
    assert search_of(dataclasses.replace(folds, splits=SplitConfig(folds=3, fold=1))).scheduler == "asha"
    with pytest.raises(InputError, match=r"goes by the validation score: give --splits\.validation-fraction a share"):
        search_of(dataclasses.replace(small_config, splits=SplitConfig(validation_fraction=0.0)))


def test_a_trial_of_several_folds_stands_for_all_their_checkpoints(
    tmp_path: Path, make_result: Callable[..., Any], small_config: TrainConfig
) -> None:
    search, trials = open_search(tmp_path), tmp_path / "trials"
    identity = run_identity(dataclasses.replace(small_config, splits=SplitConfig(folds=2)), "digest")
    for trial_id in ("a", "b"):
        RunFolder(str(trials), trial_id).claim(identity)
        for fold in range(2):
            save_checkpoint(trials / trial_id / f"fold-{fold}", 3, 0.9)
    results = [make_result("a", 1e-3, [0.2]), make_result("b", 1e-2, [0.4])]
    rows = rows_of(results, trials)
    assert [(row["checkpoint"], row["iou"]["mean"]) for row in rows] == [
        (str(trials / "b"), 0.4),
        (str(trials / "a"), 0.2),
    ]
    assert all(has_folds(row) for row in rows)
    assert export_best(rows, search) == {"checkpoint": str(trials / "b"), "values": {RATE: 1e-2}}
    assert not (tmp_path / "search" / "best").exists()


def trial_of(trial_id: str, status: str = "RUNNING", **config: Any) -> Any:
    return SimpleNamespace(trial_id=trial_id, status=status, config=config)


def report(epoch: int, iou: float) -> dict[str, float]:
    return {"epoch": epoch, **scores_of(iou)}


def test_asha_leaves_a_trial_all_the_epochs_it_was_given(tmp_path: Path, small_config: TrainConfig) -> None:
    search = search_of(small_config, space=("epochs=integer:8:16",))
    scheduler = build_scheduler(search, RunFolder(str(tmp_path), "search"))
    scheduler.set_search_properties("iou_mean", "max")
    trial = trial_of("a", epochs=16)
    scheduler.on_trial_add(None, trial)
    decisions = [scheduler.on_trial_result(None, trial, report(epoch, 0.5)) for epoch in range(1, 17)]
    assert decisions == ["CONTINUE"] * 15 + ["STOP"]


def test_asha_remembers_the_trials_of_a_search_that_was_cut_off(tmp_path: Path, small_config: TrainConfig) -> None:
    def start() -> Any:
        scheduler = build_scheduler(search_of(small_config), RunFolder(str(tmp_path), "search"))
        scheduler.set_search_properties("iou_mean", "max")
        return scheduler

    def judge(scheduler: Any, name: str, iou: float) -> str:
        trial = trial_of(name)
        scheduler.on_trial_add(None, trial)
        decision: str = scheduler.on_trial_result(None, trial, report(1, iou))
        return decision

    first = start()
    assert [judge(first, "a", 0.5), judge(first, "b", 0.6)] == ["CONTINUE", "CONTINUE"]
    again = start()
    assert [judge(again, "c", 0.4), judge(again, "d", 0.7)] == ["STOP", "CONTINUE"]
    assert judge(start(), "e", 0.65) == "CONTINUE" and judge(start(), "f", 0.5) == "STOP"


def test_a_report_of_the_last_trial_writes_no_more_than_one_of_the_first(
    tmp_path: Path, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    put = Objects.put

    def noted(objects: Objects, key: str, data: bytes) -> None:
        written.append(len(data))
        put(objects, key, data)

    monkeypatch.setattr(Objects, "put", noted)
    folder = RunFolder(str(tmp_path), "search")
    scheduler = build_scheduler(search_of(small_config), folder)
    scheduler.set_search_properties("iou_mean", "max")
    for number in range(30):
        trial = trial_of(f"t{number:02d}")
        scheduler.on_trial_add(None, trial)
        for epoch in (1, 2):
            scheduler.on_trial_result(None, trial, report(epoch, 0.5))
    assert len(written) == 60 and max(written[-2:]) == max(written[:2])
    assert read_reports(folder) == {f"t{number:02d}": [(1, 0.5), (2, 0.5)] for number in range(30)}


def test_what_an_earlier_version_kept_of_all_trials_in_one_file_is_known(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path), "search")
    folder.write("asha.reports", {"reports": [["a", 1, 0.5], ["b", 1, 0.6], ["a", 2, 0.7]]})
    folder.write("asha/b.reports", {"reports": [[1, 0.6], [2, 0.8]]})
    assert read_reports(folder) == {"a": [(1, 0.5), (2, 0.7)], "b": [(1, 0.6), (2, 0.8)]}


def test_progress_counts_each_trials_own_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    progress = SearchProgress(epochs=16, trials=3)
    short, long = trial_of("a", epochs=8), trial_of("b", epochs=16)

    def tell(trial: Any, epoch: int) -> str:
        progress.on_trial_result(0, [short, long], trial, {**report(epoch, 0.5), "time_this_iter_s": 60.0})
        return capsys.readouterr().out

    # 8 + 16 epochs of the two that run, at most 16 of the third: 40 minutes for two at a time.
    assert "epoch 1 of 8:" in (said := tell(short, 1)) and "at most 0:19:30 left" in said
    assert "epoch 1 of 16:" in (said := tell(long, 1)) and "at most 0:19:00 left" in said
    tell(short, 8)
    tell(long, 8)
    progress.on_trial_complete(0, [short, long], short)
    progress.on_trial_complete(0, [short, long], long)
    assert capsys.readouterr().out.split("\n")[0].endswith("finished")
