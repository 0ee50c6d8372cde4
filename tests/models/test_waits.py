"""Nothing in the models makes the host wait for a GPU, but the one look at a step's gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import (
    PYTORCH3DUNET_LOSS,
    Loss,
    LossConfig,
    OptimiserStep,
    ThresholdCounts,
    UNetConfig,
    WeightAverage,
    build_unet,
    choose_precision,
    sliding_window_probabilities,
)
from tests.device_waits import DeviceWaits

CPU = torch.device("cpu")
FOREST = ((1, 2), (1,), (2,), (3,))
NETWORKS = {
    "plain": UNetConfig(widths=(4, 8, 8), deep_supervision=1),
    "residual": UNetConfig(widths=(4, 8, 8), block="residual", encoder_blocks=(1, 1, 1), stem_stride=2),
    "pre_norm": UNetConfig(widths=(4, 8, 8), block="pre_norm", norm_groups=2, down="max_pool", up="nearest"),
    "labels": UNetConfig(widths=(4, 8, 8), head="labels"),
    "forest": UNetConfig(widths=(4, 8, 8), head="labels", regions=4, region_labels=FOREST),
}
LOSSES = [LossConfig(), LossConfig(dice="sample", voxel="focal"), LossConfig(voxel="ce"), PYTORCH3DUNET_LOSS]


def regions_like(image_BMDHW: Tensor) -> Tensor:
    return (torch.rand(len(image_BMDHW), 3, *image_BMDHW.shape[2:]) < 0.3).to(torch.uint8)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_forward_pass_waits_for_nothing(network: str) -> None:
    built, image = build_unet(NETWORKS[network]), torch.randn(1, 4, 16, 16, 16)
    with DeviceWaits() as waits:
        built.train()(image)
        built.eval()(image)
    assert waits.found == []


@pytest.mark.parametrize("config", LOSSES, ids=lambda config: f"{config.dice}-{config.voxel}")
def test_a_loss_waits_for_nothing(config: LossConfig) -> None:
    fine, coarse = torch.randn(2, 3, 8, 8, 8), torch.randn(2, 3, 4, 4, 4)
    regions = regions_like(fine)
    with DeviceWaits() as waits:
        Loss(config)((fine, coarse), regions)
    assert waits.found == []


def test_labels_of_regions_wait_for_nothing() -> None:
    logits, regions = torch.randn(2, 3, 8, 8, 8), torch.zeros(2, 4, 8, 8, 8, dtype=torch.uint8)
    with DeviceWaits() as waits:
        Loss(LossConfig(voxel="ce"), region_labels=FOREST)((logits,), regions)
    assert waits.found == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("gradient", [1.0, torch.inf])
def test_an_update_waits_once(precision: str, gradient: float) -> None:
    """Taken or not, and with a loss scale as well."""
    layer = torch.nn.Linear(2, 2)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    step = OptimiserStep(layer, optimiser, choose_precision(CPU, precision), device=CPU)  # type: ignore[arg-type]
    average = WeightAverage(layer, 0.9)
    image = torch.full((1, 2), gradient)
    with DeviceWaits() as waits:
        step.backward(layer(image).sum())
        step.backward(layer(image).sum())
        result = step.update()
        average.update()
    assert result.taken is (gradient == 1.0)
    assert len(waits.found) == 1


@pytest.mark.parametrize("flat", [False, True])
def test_windows_of_a_case_wait_for_nothing(flat: bool) -> None:  # noqa: FBT001
    config = replace(NETWORKS["plain"], dimensions=2 if flat else 3)
    network, window = build_unet(config).eval(), (16,) * (2 if flat else 3)
    image_MDHW = torch.randn(4, 17, 20, 16)
    with DeviceWaits() as waits:
        sliding_window_probabilities(
            lambda image: network(image)[0], image_MDHW, window=window, overlap=0.5, batch_size=2, mirror_axes=(2,)
        )
    assert waits.found == []


def test_counting_thresholds_waits_for_nothing() -> None:
    probabilities_RDHW, regions_RDHW = torch.rand(3, 4, 5, 6), regions_like(torch.zeros(1, 4, 4, 5, 6))[0]
    with DeviceWaits() as waits:
        counts = ThresholdCounts(3, device=CPU)
        counts.update("one", probabilities_RDHW, regions_RDHW)
        counts.update("one", probabilities_RDHW.half(), regions_RDHW)
        assert waits.found == []
        counts.best_per_region()  # only now is anything read
        assert waits.found
