"""nnU-Net's residual encoders M and L: the presets are what its planners make of BraTS, and compute what it does."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import Loss, LossConfig, UNetConfig, build_unet
from models.precision import BFLOAT16
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.exchange.nnunet_plans import describe_architecture, read_plans
from ray_jobs.exchange.nnunet_weights import from_theirs, to_theirs
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.presets import preset
from ray_jobs.training.memory_plan import GIB, Card, Way, decide
from storage.labels.tasks import GLI_2021_TASK
from tests.ray_jobs.exchange.nnunet_peer import build_network, count_weights, describe

ROOT = Path(__file__).parents[2]
PEER = ROOT / "tests" / "ray_jobs" / "exchange" / "nnunet_peer.py"
RECORDED = json.loads((PEER.parent / "data" / "nnunet_presets.json").read_text())
CPU = torch.device("cpu")
SIZES = pytest.mark.parametrize("size", ["M", "L"])


def preset_of(size: str) -> TrainConfig:
    return preset(f"resenc_{size.lower()}")


@SIZES
def test_the_presets_are_the_plans(size: str, tmp_path: Path) -> None:
    config, plan = preset_of(size), RECORDED[size]["plan"]
    assert list(config.sampling.patch_shape) == plan["patch_size"]
    assert config.sampling.global_batch_size == plan["batch_size"]
    assert config.sampling.steps_per_epoch == 250 and config.epochs == 1000  # its trainer's
    assert config.loss.dice == "sample" and not plan["batch_dice"]
    assert describe_architecture(config.model) == plan["architecture"]
    plans, dataset = describe("residual", ())
    plans["configurations"]["3d_fullres"] = plan
    for name, content in (("plans.json", plans), ("dataset.json", dataset)):
        (tmp_path / name).write_text(json.dumps(content))
    # Its fifth output has weight 0 in training, and a network that is brought here has it all the same.
    brought = read_plans(tmp_path, "3d_fullres", GLI_2021_TASK)
    assert brought.patch_shape == config.sampling.patch_shape
    assert dataclasses.replace(brought.model, deep_supervision=3, decoder_blocks=1) == config.model


@SIZES
def test_each_part_has_weights_of_the_recorded_shapes(size: str) -> None:
    with torch.device("meta"):
        ours = build_unet(preset_of(size).model)
    theirs = to_theirs(ours.state_dict(), ours.config)
    once = {name: weight for name, weight in theirs.items() if not name.startswith("decoder.encoder.")}
    counted = count_weights((name, weight) for name, weight in once.items() if ".all_modules." not in name)
    assert counted == RECORDED[size]["weights"]


@pytest.mark.slow
@pytest.mark.processes
def test_nnunets_planners_plan_what_is_recorded(tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2", reason="nnunetv2 isn't installed (it is in .venv-bench)")
    command = [sys.executable, str(PEER), "presets", str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL)
    assert json.loads((tmp_path / "nnunet_presets.json").read_text()) == RECORDED


@pytest.mark.slow
@pytest.mark.processes  # its imports start some
def test_with_the_same_weights_all_outputs_are_nnunets_own() -> None:
    pytest.importorskip("nnunetv2", reason="nnunetv2 isn't installed (it is in .venv-bench)")
    config = preset_of("M").model
    assert config == preset_of("L").model
    torch.manual_seed(0)
    theirs = build_network(RECORDED["L"]["plan"]["architecture"])
    for name, parameter in theirs.named_parameters():  # else each residual block is the identity
        if ".norm." in name:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.3)
    ours = build_unet(config)
    weights = from_theirs(theirs.state_dict(), config, range(config.regions))
    ours.load_state_dict({name: weight for name, weight in weights.items() if not name.startswith("heads.4.")})
    # In float32 the coarsest level's normalisation, here over two voxels, would blow rounding up.
    image = torch.randn(1, 4, 32, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        wanted, came = theirs.double()(image)[:4], ours.double().train()(image)
    for one, other in zip(came, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
        assert other.abs().max() > 1


@SIZES
def test_memory_settles_how_many_at_once_and_never_the_patch(size: str) -> None:
    config, median = preset_of(size), (140, 170, 140)
    sides, whole = config.sampling.patch_shape, config.sampling.global_batch_size
    ways = [(whole, False), (1, False), (whole, True), (1, True)]
    needed = [
        Way(patch_shape=sides, at_once=at_once, recompute=recompute).gpu_bytes(config, BFLOAT16, workers=1)
        for at_once, recompute in ways
    ]
    for memory in (*needed, 1):
        decided = decide(config, Card(name="a card", memory=memory), BFLOAT16, workers=1, shape=median)
        fitting = [way for way, bytes_of_it in zip(ways, needed, strict=True) if bytes_of_it <= memory]
        assert (decided.micro_batch_size, decided.activation_checkpointing) == (fitting or ways[-1:])[0]
        assert ("nothing smaller is allowed" in decided.reason) == (not fitting)
        assert decided.apply(config).sampling == config.sampling
    row = " | ".join(f"{each / GIB:.1f}" for each in needed)
    assert row in (ROOT / "docs" / "models.md").read_text(), f"it says what each way takes: {row}"


def test_a_step_is_the_same_however_many_patches_are_computed_at_once() -> None:
    """With each sample's Dice: with the batch's it would not be."""
    image, share = torch.randn(3, 4, 8, 8, 8), torch.tensor([0.02, 0.3, 0.9]).reshape(3, 1, 1, 1, 1)
    regions = (torch.rand(3, 3, 8, 8, 8) < share).to(torch.uint8)

    def gradient(loss: LossConfig, at_once: int) -> Tensor:
        torch.manual_seed(0)
        network = build_unet(UNetConfig(widths=(4, 8)))
        for part, truth in zip(image.split(at_once), regions.split(at_once), strict=True):
            (Loss(loss)(network(part), truth) * len(part) / len(image)).backward()
        return torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None])

    of_sample = preset_of("L").loss
    torch.testing.assert_close(gradient(of_sample, 1), gradient(of_sample, 3), rtol=0, atol=1e-6)
    assert (gradient(LossConfig(), 1) - gradient(LossConfig(), 3)).abs().max() > 1e-3


def small(config: TrainConfig) -> TrainConfig:
    """The preset with few features and small patches, all else as it is."""
    return dataclasses.replace(
        config,
        gpu=None,
        epochs=1,
        precision="float32",
        micro_batch_size=1,
        sampling=dataclasses.replace(config.sampling, patch_shape=(32, 64, 32), patches_per_epoch=3),
        model=dataclasses.replace(config.model, widths=(2, 3, 4, 5, 6, 6)),
        validation=dataclasses.replace(config.validation, overlap=0.0, window_batch=4),
    )


@pytest.mark.slow
def test_it_trains_a_step(train_bare: Callable[[TrainConfig, Path], Any], tmp_path: Path) -> None:
    config = small(preset_of("L"))
    run = train_bare(config, tmp_path)
    assert run.history[-1]["skipped_steps"] == 0 and 1 < run.history[-1]["loss"] < 2.5
    assert run.result["validation"]["cases"] == run.result["test"]["cases"] == 1
    trained = open_trained(run.result["checkpoint"], CPU)
    assert trained.config.model == config.model
    torch.manual_seed(config.sampling.seed)
    first, saved = build_unet(config.model).state_dict(), trained.model.state_dict()
    assert first.keys() == saved.keys() and not torch.equal(first["heads.3.bias"], saved["heads.3.bias"])
