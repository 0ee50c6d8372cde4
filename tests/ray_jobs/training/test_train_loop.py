"""The training loop without Ray: losses fall, a resumed run equals one left alone."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dali_pipelines import CaseReadError
from ray_jobs.checkpoints import saver
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.evaluation.validation import ThresholdCurves
from ray_jobs.on_ray.session import LocalSession, Progress
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.presets import preset
from ray_jobs.training import run as run_module
from ray_jobs.training import train_loop
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.train_loop import train
from ray_jobs.watching.step_clock import ASIDE, STEP_PARTS
from storage import CohortStore, InputError, SplitConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("bare_pictures")]

MakePlan = Callable[[TrainConfig], TrainPlan]


class StoppedSession(LocalSession):
    """A session that is asked to stop after `after` of its steps."""

    def __init__(self, folder: Path, *, after: int) -> None:
        super().__init__(folder, torch.device("cpu"))
        self._left = after

    def stop_asked(self) -> bool:
        self._left -= 1
        return self._left <= 0


class ReportingSession(LocalSession):
    """Notes which checkpoint was there at each report."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.saved: list[tuple[int, int] | None] = []

    def report(self, metrics: Mapping[str, float | str]) -> None:
        newest = CheckpointStore(self.folder).newest()
        self.saved.append(None if newest is None else newest.position)


def tensors(state_file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a saved state by their place in it."""
    found: dict[str, torch.Tensor] = {}

    def walk(part: object, place: str) -> None:
        if isinstance(part, torch.Tensor):
            found[place] = part
        elif isinstance(part, dict | list | tuple):
            for key, value in part.items() if isinstance(part, dict) else enumerate(part):
                walk(value, f"{place}/{key}")

    walk(torch.load(state_file, weights_only=True), "")
    return found


def test_a_rank_on_a_gpu_computes_there_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first collective of plain objects, which comes before the network, would find all ranks on GPU 0."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    LocalSession(tmp_path / "cpu", torch.device("cpu"))
    LocalSession(tmp_path / "gpu", torch.device("cuda:1"))
    assert current == [torch.device("cuda:1")]


def test_what_a_trial_reports_is_saved_before(
    small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune may end a trial at any report: its checkpoint must not still be on its way then."""
    real = CheckpointStore.save

    def save_slowly(*arguments: object) -> None:
        time.sleep(0.5)
        real(*arguments)

    monkeypatch.setattr(CheckpointStore, "save", save_slowly)
    plan, session = make_plan(small_config), ReportingSession(tmp_path / "run")
    train(dataclasses.replace(plan, may_end_at_a_report=True), session)
    assert session.saved == [(1, 0), (2, 0)]


def test_result_checkpoint_and_events(trained: Any, small_config: TrainConfig) -> None:
    plan, folder, result = trained.plan, trained.folder, trained.result
    for part in ("validation", "test"):
        assert result[part]["cases"] == len(getattr(plan.splits, part))
        assert set(result[part]["iou"]) == {"WT", "TC", "ET", "mean"}
        assert result[part]["threshold"] == result["validation"]["threshold"]
    assert result["throughput"]["patches_per_second"] > 0
    assert 0 <= result["throughput"]["data_wait_fraction"] <= 1
    assert max(each["iou_mean"] for each in trained.history) == pytest.approx(result["validation"]["iou"]["mean"])

    checkpoint = folder / "checkpoint_epoch_0002"
    assert result["checkpoint"] in {str(folder / f"checkpoint_epoch_000{epoch}") for epoch in (1, 2)}
    assert {file.name for file in checkpoint.iterdir()} - {"evidence.npz"} == {
        "model.safetensors",
        "state.pt",
        "config.json",
        "decision.json",
        "curves.json",
        "cases.json",
        "record.json",
    }
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    assert not [name for name in weights if name.startswith(("module.", "_orig_mod."))]
    assert torch.load(checkpoint / "state.pt", weights_only=True)["loader"]["epoch"] == 2
    said = json.loads((checkpoint / "config.json").read_text())
    assert (said["normalisation"], said["modalities"]) == ("zscore", ["flair", "t1", "t1ce", "t2"])
    decision = json.loads((checkpoint / "decision.json").read_text())
    assert set(decision["thresholds"]) == {"WT", "TC", "ET"} and decision["largest_tumour_only"] is False

    pictures = {file.name for file in folder.glob("cross_section_*.png")}
    assert pictures == {f"cross_section_{case}.png" for case in (*plan.splits.validation, *plan.splits.test)}
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"validation/iou_WT", "validation/dice_mean", "validation/threshold_ET", "learning_rate"} <= scalars
    assert {"epoch/loss", "epoch/patches_per_second", "epoch/data_wait_fraction"} <= scalars
    assert {"gradient_norm", "seconds_per_step/forward"} <= scalars
    assert len(events.Scalars("loss/step")) == small_config.epochs * small_config.sampling.steps_per_epoch
    for pictures_of in ("cross_section", "threshold_curves"):
        assert len(events.Images(pictures_of)) == small_config.epochs


def test_the_result_says_where_the_time_went(trained: Any) -> None:
    result, took = trained.result, trained.seconds
    seconds = result["time"]["seconds"]
    assert set(seconds) == {*STEP_PARTS, *ASIDE, "other"}
    for part in ("wait", "forward", "backward", "optimiser", "validation", "checkpoints"):
        assert seconds[part] > 0, part
    assert seconds["communication"] == 0  # one rank
    assert 0.5 * took < sum(seconds.values()) < took
    verdict = result["time"]["bound_by"]
    assert verdict == "start" or verdict.removesuffix("s") in result["time"]["advice"]


def test_a_run_stopped_in_mid_epoch_equals_one_left_alone(
    small_config: TrainConfig,
    make_plan: MakePlan,
    losses_by_step: Callable[[Path], dict[int, set[float]]],
    tmp_path: Path,
) -> None:
    """Bit for bit, however often it was stopped, with all the state there is to lose."""
    optimiser = dataclasses.replace(small_config.optimiser, ema_decay=0.9)
    plan = make_plan(dataclasses.replace(small_config, epochs=3, patience=5, micro_batch_size=2, optimiser=optimiser))
    alone = train(plan, LocalSession(tmp_path / "alone", torch.device("cpu")))

    folder = tmp_path / "stopped"
    where = [train(plan, StoppedSession(folder, after=steps)) for steps in (2, 3, 1)]
    assert where == [
        {"stopped": "after step 2 of epoch 1"},
        {"stopped": "after step 2 of epoch 2"},
        {"stopped": "after step 3 of epoch 2"},  # the epoch's last step, before its validation
    ]
    resumed = train(plan, LocalSession(folder, torch.device("cpu")))

    for result in (alone, resumed):
        for figures in result["history"]:
            for varies in ("patches_per_second", "data_wait_fraction"):
                figures.pop(varies)
    assert resumed["history"] == alone["history"]
    assert resumed["validation"] == alone["validation"]
    assert losses_by_step(folder) == losses_by_step(tmp_path / "alone")
    assert len(losses_by_step(folder)) == 9
    last = "checkpoint_epoch_0003"
    ours, theirs = (tensors(root / last / "state.pt") for root in (folder, tmp_path / "alone"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    name = f"{last}/model.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_a_run_that_dies_in_a_validation_repeats_no_step(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "SECONDS_WORTH_SAVING", 0.0)
    plan = trained.plan

    def die(*_: object, **__: object) -> None:
        raise RuntimeError("the node is gone")

    with monkeypatch.context() as patch:
        patch.setattr(train_loop, "evaluate", die)
        with pytest.raises(RuntimeError, match="the node is gone"):
            train(plan, LocalSession(tmp_path / "died", torch.device("cpu")))
    newest = CheckpointStore(str(tmp_path / "died")).newest()
    assert newest is not None and newest.position == (0, 3)  # the epoch's last step
    resumed = train(plan, LocalSession(tmp_path / "died", torch.device("cpu")))
    assert resumed["validation"] == trained.result["validation"]


def test_patience_ends_a_run_that_no_longer_improves(
    small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    still = dataclasses.replace(small_config.optimiser, learning_rate=1e-30)  # moves no weight
    config = dataclasses.replace(small_config, epochs=9, patience=2, optimiser=still)
    result = train(make_plan(config), LocalSession(tmp_path / "run", torch.device("cpu")))
    assert [figures["epoch"] for figures in result["history"]] == [1, 2, 3]


def test_folds_need_no_test_cases(small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(dataclasses.replace(small_config, epochs=1))
    plan = dataclasses.replace(plan, splits=dataclasses.replace(plan.splits, test=()))
    result = train(plan, LocalSession(tmp_path / "run", torch.device("cpu")))
    assert result["test"] is None
    assert result["validation"]["cases"] == len(plan.splits.validation)


def test_loss_falls(small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path) -> None:
    sampling = dataclasses.replace(small_config.sampling, patches_per_epoch=48)
    optimiser = dataclasses.replace(small_config.optimiser, learning_rate=0.03)
    session = LocalSession(tmp_path / "run", torch.device("cpu"))
    train(make_plan(dataclasses.replace(small_config, sampling=sampling, optimiser=optimiser, epochs=3)), session)
    losses = [each["loss"] for each in session.history]
    assert losses[-1] < 0.9 * losses[0]


def test_the_2d_network_trains_on_slices(make_plan: MakePlan, tmp_path: Path) -> None:
    flat = preset("brats2d")
    config = dataclasses.replace(
        flat,
        epochs=1,
        sampling=dataclasses.replace(flat.sampling, patch_shape=(32, 32), global_batch_size=4, patches_per_epoch=8),
        model=dataclasses.replace(flat.model, widths=(4, 8), deep_supervision=0),
    )
    result = train(make_plan(config), LocalSession(tmp_path / "run", torch.device("cpu")))
    assert 0 <= result["validation"]["iou"]["mean"] <= 1


def test_phantom_is_not_too_easy(trained: Any) -> None:
    """A threshold on one modality must not find what the network is praised for."""
    assert 0.05 < trained.result["baseline_iou"]["mean"] <= 0.6


def test_losses_that_are_no_numbers_end_the_run_with_a_diagnosis(
    small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoNumber(torch.nn.Module):
        def forward(self, outputs: tuple[torch.Tensor, ...], regions: torch.Tensor) -> torch.Tensor:
            return outputs[0].sum() * float("nan")

    monkeypatch.setattr(run_module, "Loss", lambda *_, **__: NoNumber())
    sampling = dataclasses.replace(small_config.sampling, patches_per_epoch=48)
    plan = make_plan(dataclasses.replace(small_config, sampling=sampling))
    result = train(plan, LocalSession(tmp_path / "run", torch.device("cpu")))
    assert "10 steps in a row" in result["failed"]
    assert "Batch: BraTS20_Training_" in result["failed"]


def spoil(store: Path, case_id: str) -> None:
    """Flip a byte in the case's image."""
    for shard in (store / "cases" / case_id / "image").rglob("c/**/*"):
        if shard.is_file():
            content = bytearray(shard.read_bytes())
            content[len(content) // 2] ^= 0xFF
            shard.write_bytes(content)


def test_cases_that_go_bad_are_named_and_replaced_or_left_out(
    small_config: TrainConfig, phantom_store: CohortStore, make_plan: MakePlan, tmp_path: Path
) -> None:
    copy = tmp_path / "store.zarr"
    shutil.copytree(phantom_store.uri, copy)
    plan = dataclasses.replace(make_plan(small_config), store=str(copy))
    training, *_ = plan.splits.train
    # Two cases to score, one of them bad.
    splits = dataclasses.replace(plan.splits, validation=(*plan.splits.validation, *plan.splits.test), test=())
    plan = dataclasses.replace(plan, splits=splits)
    scored = plan.splits.validation[-1]
    for case_id in (training, scored):
        spoil(copy, case_id)
    told = list[str]()

    class Listening(LocalSession):
        def tell(self, progress: Progress) -> None:
            told.append(progress.message)

    result = train(plan, Listening(tmp_path / "run", torch.device("cpu")))
    assert list(result["bad_cases"]) == [training]
    assert result["validation"]["cases"] == 1
    assert list(result["validation"]["bad_cases"]) == [scored]
    assert sum("not decoded on this node yet" in line for line in told) == 1
    named = [line for line in told if "cannot be read" in line]
    assert len(named) == 2
    assert any(line.startswith(f"case {training} cannot be read, others take its place: ") for line in named)
    assert any(line.startswith(f"case {scored} cannot be read, left out of the scores: ") for line in named)

    strict = dataclasses.replace(plan, config=dataclasses.replace(plan.config, on_bad_case="raise"))
    with pytest.raises(CaseReadError, match=training):
        train(strict, LocalSession(tmp_path / "strict", torch.device("cpu")))

    spoil(copy, plan.splits.validation[0])
    cold = dataclasses.replace(plan, cache=tmp_path / "cold")  # the other cache has decoded the case already
    with pytest.raises(InputError, match="none of the 2 cases to score can be read"):
        train(cold, LocalSession(tmp_path / "none", torch.device("cpu")))


def test_given_thresholds_are_scored_at_and_saved(
    tmp_path: Path, small_config: TrainConfig, make_plan: MakePlan
) -> None:
    given = {"WT": 0.3, "TC": 0.457, "ET": 0.5}
    config = dataclasses.replace(small_config, epochs=1, thresholds=tuple(given.values()))
    result = train(make_plan(config), LocalSession(tmp_path / "run", torch.device("cpu")))
    assert result["validation"]["threshold"] == given and result["test"]["threshold"] == given
    checkpoint = Path(result["checkpoint"])
    assert json.loads((checkpoint / "decision.json").read_text())["thresholds"] == given
    assert result["decision"]["said"][0] == "Decision: thresholds as given, all is kept."
    assert not (checkpoint / "evidence.npz").exists()
    curves = ThresholdCurves.from_json(json.loads((checkpoint / "curves.json").read_text()))
    for index, (region, threshold) in enumerate(given.items()):
        at = int(np.searchsorted(curves.thresholds_T, np.float32(threshold - 1e-6)))
        assert curves.iou_TR[at, index] == pytest.approx(result["validation"]["iou"][region], abs=1e-6)


def test_a_run_that_validates_on_nothing_keeps_its_last_epoch_and_resumes_exactly(
    small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    checkpoints = dataclasses.replace(small_config.checkpoints, every_steps=1)
    splits = SplitConfig(validation_fraction=0.0)
    plan = make_plan(dataclasses.replace(small_config, epochs=3, splits=splits, checkpoints=checkpoints))
    given = plan.splits
    plan = dataclasses.replace(
        plan, splits=dataclasses.replace(given, train=given.train + given.validation, validation=())
    )
    alone, resumed = tmp_path / "alone", tmp_path / "resumed"
    result = train(plan, LocalSession(alone, torch.device("cpu")))
    assert train(plan, StoppedSession(resumed, after=5)) == {"stopped": "after step 2 of epoch 2"}
    # Stopped in mid-epoch, it has the last whole epoch to predict with, and the newest to go on from.
    assert {file.name for file in resumed.glob("checkpoint_*")} == {
        "checkpoint_epoch_0001",
        "checkpoint_epoch_0001_step_000002",
    }
    assert open_trained(str(resumed), torch.device("cpu")).uri == str(resumed / "checkpoint_epoch_0001")
    again = train(plan, LocalSession(resumed, torch.device("cpu")))

    assert result["validation"] is None and result["baseline_iou"] is None
    assert result["checkpoint"] == str(alone / "checkpoint_epoch_0003")
    half = dict.fromkeys(("WT", "TC", "ET"), 0.5)
    assert result["thresholds"] == result["test"]["threshold"] == half and result["test"]["cases"] == len(given.test)
    assert again["test"] == result["test"]
    network = open_trained(str(alone), torch.device("cpu"))
    assert network.uri == result["checkpoint"] and network.decision is not None
    assert network.decision.thresholds == (0.5, 0.5, 0.5)
    assert [row["epoch"] for row in result["history"]] == [1, 2, 3] and "iou_mean" not in result["history"][0]


def test_a_run_that_tests_on_nothing_either_scores_nothing(
    small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan(dataclasses.replace(small_config, epochs=1, thresholds=(0.4, 0.5, 0.6)))
    plan = dataclasses.replace(plan, splits=dataclasses.replace(plan.splits, validation=(), test=()))
    result = train(plan, LocalSession(tmp_path / "run", torch.device("cpu")))
    assert result["validation"] is None and result["test"] is None
    assert result["thresholds"] == {"WT": 0.4, "TC": 0.5, "ET": 0.6}
