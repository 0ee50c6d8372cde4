import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks.whole_head import Head, mean_dice, monai, ours, store_of
from models import UNetConfig, build_unet
from models.precision import FLOAT32
from ray_jobs.evaluation.trained import TrainedNetwork
from ray_jobs.settings.presets import preset
from storage import InputError


@pytest.fixture
def network() -> TrainedNetwork:
    small, demo = UNetConfig(widths=(4, 8), deep_supervision=0), preset("demo")
    validation = dataclasses.replace(demo.validation, mirror=True, overlap=0.25)
    sampling = dataclasses.replace(demo.sampling, patch_shape=(8, 8, 8))
    config = dataclasses.replace(demo, model=small, sampling=sampling, validation=validation)
    return TrainedNetwork(uri="", config=config, model=build_unet(small).eval(), precision=FLOAT32, decision=None)


@pytest.fixture
def head() -> Head:
    box = (slice(2, 12), slice(1, 13), slice(3, 15))
    scan_MDHW, regions_RDHW = torch.zeros(4, 16, 16, 16), torch.zeros(3, 16, 16, 16)
    scan_MDHW[(slice(None), *box)] = torch.rand(4, 10, 12, 12) + 0.1
    regions_RDHW[:, 4:8, 4:8, 4:8] = 1
    return Head(scan_MDHW=scan_MDHW, box=box, regions_RDHW=regions_RDHW)


@pytest.mark.processes  # MONAI asks uname
def test_each_predicts_the_whole_scan(network: TrainedNetwork, head: Head) -> None:
    pytest.importorskip("monai")
    contenders = {**ours(network), **monai(network)}
    assert len(contenders) == 6  # ours with mirror images and without, and overlapping by more; MONAI's three
    with torch.inference_mode():
        found = {name: predict(head) for name, predict in contenders.items()}
    outside = torch.ones(16, 16, 16, dtype=torch.bool)
    outside[head.box] = False
    for name, probabilities_RDHW in found.items():
        assert probabilities_RDHW.shape == head.regions_RDHW.shape, name
        assert probabilities_RDHW.min() >= 0 and probabilities_RDHW.max() <= 1
    for name in ("ours, as the run validated", "ours, without mirror images", "MONAI, the same cut to the head first"):
        assert not found[name][:, outside].any(), name


def test_the_store_is_that_of_the_run(tmp_path: Path) -> None:
    """What the demo's is called hangs on what is in it."""
    (tmp_path / "summary.json").write_text('{"store": "/data/cohort-1234.zarr"}')
    assert store_of(str(tmp_path)) == "/data/cohort-1234.zarr"
    with pytest.raises(InputError, match="give --store"):
        store_of(str(tmp_path / "checkpoint_epoch_0007"))


def test_dice_is_that_of_the_whole_scan(head: Head) -> None:
    half = head.regions_RDHW.clone()
    half[0, 6:] = 0  # of one region half is found: 2 x 32 / (32 + 64)
    assert mean_dice([head.regions_RDHW, half], [head, head]) == pytest.approx((5 + 2 / 3) / 6)
    nothing = dataclasses.replace(head, regions_RDHW=torch.zeros_like(head.regions_RDHW))
    assert mean_dice([torch.zeros(3, 16, 16, 16)], [nothing]) == 1
