"""The training loop without Ray: losses fall, a resumed run equals one left alone."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ray_jobs.checkpoint import read_state
from ray_jobs.config import TrainConfig
from ray_jobs.presets import preset
from ray_jobs.session import LocalSession
from ray_jobs.train_loop import TrainPlan, train

MakePlan = Callable[[TrainConfig], TrainPlan]


class ResumedSession(LocalSession):
    """A session whose latest checkpoint was left by another."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        super().__init__(folder, torch.device("cpu"))
        self._left = checkpoint

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        yield self._left


def test_result_checkpoint_and_events(small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path) -> None:
    session = LocalSession(tmp_path / "run", torch.device("cpu"))
    plan = make_plan(small_config)
    result = train(plan, session)

    for part in ("validation", "test"):
        assert result[part]["cases"] == len(getattr(plan.splits, part))
        assert set(result[part]["iou"]) == {"WT", "TC", "ET", "mean"}
        assert result[part]["threshold"] == result["validation"]["threshold"]
    assert result["throughput"]["patches_per_second"] > 0
    assert 0 <= result["throughput"]["data_wait_fraction"] <= 1
    assert max(each["iou_mean"] for each in session.history) == pytest.approx(result["validation"]["iou"]["mean"])

    checkpoint = tmp_path / "run" / "checkpoint_epoch_0002"
    assert {file.name for file in checkpoint.iterdir()} == {
        "model.safetensors",
        "state.pt",
        "config.json",
        "thresholds.json",
    }
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    assert not [name for name in weights if name.startswith(("module.", "_orig_mod."))]
    assert read_state(checkpoint)["loader"]
    assert json.loads((checkpoint / "config.json").read_text())["normalisation"] == "zscore"
    assert set(json.loads((checkpoint / "thresholds.json").read_text())) == {"WT", "TC", "ET"}

    pictures = {file.name for file in (tmp_path / "run").glob("cross_section_*.png")}
    assert pictures == {f"cross_section_{case}.png" for case in (*plan.splits.validation, *plan.splits.test)}
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"validation/iou_WT", "validation/dice_mean", "validation/threshold_ET", "learning_rate"} <= scalars
    assert {"epoch/loss", "epoch/patches_per_second", "epoch/data_wait_fraction"} <= scalars
    assert len(events.Images("cross_section")) == small_config.epochs


def test_a_resumed_run_equals_one_left_alone(small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(dataclasses.replace(small_config, epochs=3))
    alone = LocalSession(tmp_path / "alone", torch.device("cpu"))
    train(plan, alone)
    first = tmp_path / "alone" / "checkpoint_epoch_0001"
    resumed = ResumedSession(tmp_path / "resumed", first)
    train(plan, resumed)

    assert [each["loss"] for each in resumed.history] == [each["loss"] for each in alone.history[1:]]
    last = "checkpoint_epoch_0003/model.safetensors"
    assert (tmp_path / "resumed" / last).read_bytes() == (tmp_path / "alone" / last).read_bytes()


def test_loss_falls(small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path) -> None:
    sampling = dataclasses.replace(small_config.sampling, patch_shape=(32, 32, 32), patches_per_epoch=60)
    session = LocalSession(tmp_path / "run", torch.device("cpu"))
    train(make_plan(dataclasses.replace(small_config, sampling=sampling, epochs=4)), session)
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


def test_phantom_is_not_too_easy(small_config: TrainConfig, make_plan: MakePlan, tmp_path: Path) -> None:
    """A threshold on one modality must not find what the network is praised for."""
    result = train(
        make_plan(dataclasses.replace(small_config, epochs=1)), LocalSession(tmp_path / "run", torch.device("cpu"))
    )
    assert 0.05 < result["baseline_iou"]["mean"] <= 0.6
