"""What is maximised, IoU or Dice, is what thresholds, checkpoints and trials are chosen by, and all of them say so."""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models import Objective, RegionScores, ThresholdCounts
from ray_jobs.checkpoints.checkpoint import CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.evaluation.validation import Evaluation, curves_of
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.pictures.figures import draw_threshold_curves
from ray_jobs.searching.figure import draw_search
from ray_jobs.searching.job import print_trials
from ray_jobs.searching.results import Pricing, make_row, sort_rows
from ray_jobs.searching.search import build_scheduler
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.searching.threshold_scan import ThresholdScan, print_scan
from ray_jobs.searching.threshold_trials import best_of
from ray_jobs.searching.trial_progress import SearchProgress
from ray_jobs.settings.command import parse_training
from ray_jobs.settings.config import TrainConfig, decode_config, default_run_name, run_identity, without_former_parts
from ray_jobs.training import train_loop
from ray_jobs.training.run import TrainPlan
from ray_jobs.training.train_loop import train
from ray_jobs.watching.monitoring import Monitor
from ray_jobs.watching.step_clock import StepClock
from scoring import score_case
from storage import InputError, region_masks
from storage.labels.tasks import GLIOMA_REGIONS, GTV_REGIONS, TASKS
from tests.ray_jobs.conftest import FORMER_DEMO

NAMES = tuple(region.name for region in GLIOMA_REGIONS)
RATE = "optimiser.learning_rate"


def counts_in_doubt(regions: int = 1) -> ThresholdCounts:
    """Two cases of which a high threshold finds one whole and loses the other, and a low one finds half of each.

    Up to 0.3 both have IoU 3/7 and Dice 3/5, up to 0.8 one has 9/10 and 18/19, the other 0: mean IoU 0.429 and 0.45,
    mean Dice 0.6 and 0.474.
    """
    counts = ThresholdCounts(num_regions=regions)
    sure = torch.tensor([0.8] * 9 + [0.0] + [0.3] * 11), torch.tensor([1] * 10 + [0] * 11)
    faint = torch.tensor([0.3] * 3 + [0.0] * 4), torch.tensor([1] * 7)
    for case_id, (probabilities, truth) in (("sure", sure), ("faint", faint)):
        counts.update(case_id, probabilities.repeat(regions, 1), truth.repeat(regions, 1))
    return counts


def random_counts() -> tuple[ThresholdCounts, dict[str, tuple[NDArray[Any], NDArray[Any]]]]:
    """Cases of three regions, of which one is empty once, and their probabilities and truth."""
    rng, cases = np.random.default_rng(7), {}
    counts = ThresholdCounts(num_regions=3, num_thresholds=21)
    for number in range(5):
        truth = rng.random((3, 60)) < rng.uniform(0.05, 0.6)
        truth[2] &= number > 0
        probabilities = (rng.uniform(0.2, 1) * (0.4 * truth + rng.uniform(0, 0.6, truth.shape))).astype(np.float32)
        cases[str(number)] = probabilities, truth
        counts.update(str(number), torch.from_numpy(probabilities), torch.from_numpy(truth))
    return counts, cases


def score_by_hand(objective: Objective, predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    hits, either = int((predicted & truth).sum()), int((predicted | truth).sum())
    if either == 0:
        return 1.0
    return hits / either if objective == "iou" else 2 * hits / int(predicted.sum() + truth.sum())


@pytest.mark.parametrize(("objective", "threshold"), [("iou", 0.5), ("dice", 0.3)])
def test_mean_iou_and_mean_dice_have_other_thresholds(objective: Objective, threshold: float) -> None:
    counts = counts_in_doubt(2)
    wanted = pytest.approx((threshold, threshold))
    assert counts.best_per_region(objective).threshold == wanted == counts.best_shared(objective).threshold
    assert counts.best_per_region("iou").iou == pytest.approx((0.45, 0.45))
    assert counts.best_per_region("dice").dice == pytest.approx((0.6, 0.6))


@pytest.mark.parametrize("objective", ["iou", "dice"])
def test_thresholds_are_those_of_trying_each(objective: Objective) -> None:
    counts, cases = random_counts()
    grid = counts.thresholds.numpy()
    tried_TR = np.array(
        [
            [np.mean([score_by_hand(objective, p[r] >= at, t[r]) for p, t in cases.values()]) for r in range(3)]
            for at in grid
        ]
    )

    def best(score_T: NDArray[np.float64]) -> float:
        top = [at for at in range(1, len(grid)) if score_T[at] >= score_T[1:].max() - 1e-12]
        return float(grid[min(top, key=lambda at: abs(grid[at] - 0.5))])

    found, shared = counts.best_per_region(objective), counts.best_shared(objective)
    assert found.threshold == tuple(best(tried_TR[:, region]) for region in range(3))
    assert set(shared.threshold) == {best(tried_TR.mean(axis=1))}
    assert found.mean(objective) == pytest.approx(tried_TR[1:].max(axis=0).mean())
    other = "dice" if objective == "iou" else "iou"
    assert found.threshold != counts.best_per_region(other).threshold
    assert shared.threshold != counts.best_shared(other).threshold


def test_what_training_counts_are_plain_scores() -> None:
    rng, task = np.random.default_rng(2), TASKS["gli-2024"]
    counts, plain = ThresholdCounts(num_regions=len(task.regions)), {}
    for number in range(6):
        values = [0, *sorted(task.labels - {0})] if number else [0]  # the first holds nothing
        true, predicted = (rng.choice(values, size=(6, 7, 8)).astype(np.uint8) for _ in range(2))
        if number > 2:
            predicted *= true != max(values)  # regions that are predicted nowhere
        true_RDHW, predicted_RDHW = (region_masks(labels, task.regions).astype(bool) for labels in (true, predicted))
        counts.update(str(number), torch.from_numpy(predicted_RDHW).float(), torch.from_numpy(true_RDHW))
        plain[str(number)] = score_case(predicted, true, task=task, rules="plain", spacing_mm=(1, 1, 1))
    halves = [0.5] * len(task.regions)
    for kind in ("iou", "dice"):
        found = {case_id: getattr(scores, kind) for case_id, scores in counts.by_case(halves).items()}
        wanted = {case: tuple(scores[name][kind] for name in task.region_names) for case, scores in plain.items()}
        assert found == wanted  # to the last bit
        assert getattr(counts.at(halves), kind) == pytest.approx(np.mean(list(wanted.values()), axis=0), abs=1e-15)
    assert {*wanted["0"]} == {1.0} and 0 in {value for scores in wanted.values() for value in scores}


def record(epoch: int, iou: float, dice: float, objective: Objective) -> CheckpointRecord:
    metrics = {"iou_mean": iou, "dice_mean": dice}
    return CheckpointRecord(epoch=epoch, step=0, metrics=metrics, objective=objective)


def test_the_best_checkpoint_is_that_of_the_objective(tmp_path: Path) -> None:
    for objective, best in (("iou", 1), ("dice", 2)):
        store = CheckpointStore(str(tmp_path / objective), keep_best=1)
        for epoch, iou, dice in ((1, 0.5, 0.6), (2, 0.4, 0.7), (3, 0.3, 0.5)):
            store.save(record(epoch, iou, dice, objective), {})  # type: ignore[arg-type]
        assert [each.epoch for each in store.records()] == [best, 3]  # the best and the newest
        found = store.best()
        assert found is not None and (found.epoch, found.objective) == (best, objective)
        said = json.loads(store.open(found).read("record.json"))
        assert (said["objective"], said["rules"]) == (objective, "plain")


def test_a_record_of_before_maximised_iou() -> None:
    before = {"epoch": 1, "step": 0, "metrics": {"iou_mean": 0.25, "dice_mean": 0.5}}
    assert CheckpointRecord.decode(json.dumps(before).encode()).score == 0.25


def test_what_is_maximised_is_part_of_a_run_where_it_is_not_iou(tmp_path: Path) -> None:
    before = parse_training(FORMER_DEMO)
    by_dice = dataclasses.replace(before, objective="dice")
    identity = run_identity(before, "digest")
    assert "objective" not in identity and without_former_parts({**identity, "objective": "iou"}) == identity
    assert default_run_name(before, "digest") == "demo-493d9fa4" != default_run_name(by_dice, "digest")
    assert decode_config(run_identity(by_dice, "digest")).objective == "dice"
    assert decode_config(identity).objective == "iou"
    RunFolder(str(tmp_path), "one").claim(identity)
    with pytest.raises(InputError, match="objective: None -> dice"):
        RunFolder(str(tmp_path), "one").claim(run_identity(by_dice, "digest"))


def evaluated(objective: Objective, iou: float = 0.45, dice: float = 0.6, *, given: bool = False) -> Evaluation:
    scores = RegionScores(threshold=(0.5,) * 3, iou=(iou,) * 3, dice=(dice,) * 3, cases=1)
    return Evaluation(
        cases=1,
        regions=GLIOMA_REGIONS,
        scores=scores,
        thresholds=dict.fromkeys(NAMES, 0.5),
        curves=curves_of(counts_in_doubt(3), NAMES),
        objective=objective,
        thresholds_given=given,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("bare_pictures")
def test_a_run_keeps_and_ends_by_what_it_maximises(
    small_config: TrainConfig,
    make_plan: Callable[[TrainConfig], TrainPlan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """IoU falls from the first epoch on, Dice from the second."""
    scores = iter([(0.5, 0.5), (0.4, 0.7), (0.3, 0.6), (0.2, 0.5)])
    seen: list[Objective] = []

    def score(*_: object, objective: Objective, **__: object) -> Evaluation:
        seen.append(objective)
        iou, dice = next(scores, (0.0, 0.0))
        evaluation = evaluated(objective, iou, dice)
        return dataclasses.replace(evaluation, baseline_iou=dict.fromkeys((*NAMES, "mean"), 0.1))

    monkeypatch.setattr(train_loop, "evaluate", score)
    sampling = dataclasses.replace(small_config.sampling, patches_per_epoch=4)
    config = dataclasses.replace(small_config, epochs=9, patience=2, objective="dice", sampling=sampling)
    result = train(make_plan(config), LocalSession(tmp_path / "run", torch.device("cpu")))
    assert Path(result["checkpoint"]).name == "checkpoint_epoch_0002"
    assert len(result["history"]) == 4 and set(seen) == {"dice"}
    assert (result["rules"], result["objective"]) == ("plain", "dice")


@pytest.mark.parametrize(
    ("evaluation", "line", "choice"),
    [
        (evaluated("iou"), "validation IoU WT 0.450", "every region from 0.5 on"),
        (evaluated("dice", given=True), "validation Dice WT 0.600", "thresholds as given"),
    ],
)
def test_a_validation_says_its_rules_and_what_chose_the_thresholds(
    evaluation: Evaluation, line: str, choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    titles: list[str] = []
    monkeypatch.setattr(LocalSession, "tell", lambda _, news: told.append(news))

    def draw(*arguments: Any) -> Any:
        figure = draw_threshold_curves(*arguments)
        titles.append(figure.get_suptitle())
        return figure

    monkeypatch.setattr("ray_jobs.watching.monitoring.draw_threshold_curves", draw)
    loader: Any = SimpleNamespace(
        epoch=1, step=0, steps_per_epoch=3, sampling=SimpleNamespace(global_batch_size=1), bad_cases={}
    )
    session = LocalSession(tmp_path, torch.device("cpu"))
    with Monitor(session, loader, StepClock(session.device), epochs=2) as monitor:
        monitor.start_epoch()
        monitor.after_validation(0, evaluation)
        monitor.tell("next")
    assert told[0].message.startswith(f"epoch 1: {line}") and told[0].message.endswith("(plain rules)")
    assert told[1].score == evaluation.score and told[1].score_name == f"plain {line.split()[1]}"
    events = EventAccumulator(str(tmp_path)).Reload()
    beside = events.SummaryMetadata("validation/dice_mean").summary_description
    assert "by plain rules: means over cases" in beside and beside.endswith(choice)
    assert titles == [f"{choice} (plain rules)"]


def rows_of_two(objective: Objective, tmp_path: Path) -> list[dict[str, Any]]:
    """Two trials without checkpoints; of each the first epoch has the higher IoU, the second the higher Dice."""

    def result(name: str, rate: float, scores: list[tuple[float, float]]) -> Any:
        reports = [
            {"trial_id": name, "epoch": epoch, "time_this_iter_s": 1.0, "patches_per_second": 2.0}
            | {f"iou_{region}": iou for region in (*NAMES, "mean")}
            | {f"dice_{region}": dice for region in (*NAMES, "mean")}
            | {f"threshold_{region}": 0.1 * epoch for region in NAMES}
            for epoch, (iou, dice) in enumerate(scores, start=1)
        ]
        return SimpleNamespace(metrics_dataframe=pandas.DataFrame(reports), config={RATE: rate}, error=None)

    free = Pricing(price_per_node_hour=None, workers=1, workers_per_node=1)
    results = [result("a", 1e-3, [(0.5, 0.5), (0.4, 0.6)]), result("b", 1e-2, [(0.45, 0.5), (0.3, 0.7)])]
    return sort_rows(
        [make_row(each, str(tmp_path), free, epochs=2, objective=objective) for each in results], objective
    )


@pytest.mark.parametrize(("objective", "best", "score"), [("iou", 1e-3, 0.5), ("dice", 1e-2, 0.7)])
def test_a_search_ranks_by_what_it_maximises_and_says_so(
    objective: Objective, best: float, score: float, tmp_path: Path
) -> None:
    rows = rows_of_two(objective, tmp_path)
    assert (rows[0]["values"][RATE], rows[0][objective]["mean"]) == (best, score)
    name = {"iou": "IoU", "dice": "Dice"}[objective]
    curves = [curves_of(counts_in_doubt(3), NAMES)] * 2
    rates, *others = draw_search(rows, GLIOMA_REGIONS, curves, objective).axes
    assert rates.get_ylabel() == f"{name} (plain)" and f"{name} over the threshold" in others[0].get_title()
    assert list(rates.get_lines()[0].get_ydata()) == [row[objective]["mean"] for row in rows]
    np.testing.assert_array_equal(others[0].get_lines()[0].get_ydata(), curves[0].of(objective)[:, 0])
    folder = RunFolder(str(tmp_path), "search")
    folder.claim({})
    written = io.StringIO()
    print_trials(rows, folder, Console(file=written, width=160), objective)
    said = written.getvalue()
    assert f"highest mean {name} on the validation cases. IoU and Dice by plain rules" in said
    assert f"│ {score:.4f} │" in said


def test_asha_hears_what_is_maximised(tmp_path: Path, small_config: TrainConfig) -> None:
    folder = RunFolder(str(tmp_path), "search")
    search = SearchConfig(training=dataclasses.replace(small_config, objective="dice"))

    def judge(name: str, iou: float, dice: float) -> str:
        """Each from a start of its own: what the earlier ones heard is read again."""
        scheduler = build_scheduler(search, folder)
        scheduler.set_search_properties("dice_mean", "max")
        trial: Any = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
        return scheduler.on_trial_result(None, trial, {"epoch": 1, "iou_mean": iou, "dice_mean": dice})  # type: ignore[arg-type]

    judged = [judge("a", 0.1, 0.5), judge("b", 0.9, 0.4), judge("c", 0.0, 0.6)]
    assert judged == ["CONTINUE", "STOP", "CONTINUE"]


def test_trials_tell_what_is_maximised(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"epoch": 1, "time_this_iter_s": 1.0, "iou_mean": 0.1, "iou_ET": 0.2, "dice_mean": 0.3, "dice_ET": 0.4}
    trial = SimpleNamespace(trial_id="a", status="RUNNING", config={})
    SearchProgress(epochs=2, trials=1, objective="dice").on_trial_result(0, [trial], trial, report)
    assert "plain Dice 0.300  ET 0.400" in capsys.readouterr().out


def test_what_trials_are_compared_by_is_not_searched(small_config: TrainConfig) -> None:
    with pytest.raises(InputError, match="'objective' is no field of a run that can be searched"):
        SearchConfig(training=small_config, space=("objective=choice:iou,dice",))


@pytest.mark.parametrize(("objective", "threshold", "name"), [("iou", 0.5, "IoU"), ("dice", 0.3, "Dice")])
def test_a_threshold_scan_says_what_it_maximised(objective: Objective, threshold: float, name: str) -> None:
    scan = ThresholdScan(
        objective=objective,
        checkpoint="c",
        store="s",
        split="all",
        regions=GTV_REGIONS,
        counts=counts_in_doubt(),
        forward_passes={},
        bad_cases={},
    )
    (region,) = scan.region_names
    found = scan.to_json()
    assert (found["rules"], found["objective"], found["curves"]["rules"]) == ("plain", objective, "plain")
    assert found["per_region"][region]["threshold"] == threshold == found["shared"][region]["threshold"]
    assert scan.per_region == {region: pytest.approx(threshold)}
    written = io.StringIO()
    print_scan(scan, Console(file=written, width=160))
    said = " ".join(written.getvalue().split())
    assert f"thresholds of the highest {name}, which flatter" in said and "IoU and Dice by plain rules" in said
    rows = [
        {"threshold": at, "iou_mean": iou, "dice_mean": dice, f"iou_{region}": iou, f"dice_{region}": dice}
        for at, iou, dice in ((0.3, 3 / 7, 0.6), (0.5, 0.45, 9 / 19))
    ]
    assert best_of(rows, [region], objective)["shared"]["threshold"] == threshold
