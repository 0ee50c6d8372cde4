"""Network, loss, precision and thresholds together: it learns, and a resumed run is the uninterrupted one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import (
    Loss,
    LossConfig,
    OptimiserStep,
    ThresholdCounts,
    UNetConfig,
    build_unet,
    choose_precision,
    sliding_window_probabilities,
)
from models.config import PrecisionName
from models.unet import UNet

CPU = torch.device("cpu")


def _task(step: int) -> tuple[Tensor, Tensor]:
    """Nested regions that show as brightness in one modality, behind noise."""
    generator = torch.Generator().manual_seed(step)
    smooth = torch.nn.functional.interpolate(
        torch.rand(4, 1, 4, 4, generator=generator), size=(16, 16), mode="bilinear"
    )
    regions = torch.cat([smooth > level for level in (0.4, 0.55, 0.7)], dim=1).to(torch.uint8)
    image = torch.randn(4, 4, 16, 16, generator=generator)
    image[:, :1] = 8 * (smooth - 0.5) + 0.2 * image[:, :1]
    return image, regions


def _start(precision: PrecisionName) -> tuple[UNet, torch.optim.Optimizer, OptimiserStep]:
    torch.manual_seed(0)
    network = build_unet(UNetConfig(dimensions=2, widths=(8, 16), deep_supervision=0))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    return network, optimiser, OptimiserStep(network, optimiser, choose_precision(CPU, precision), device=CPU)


def _train(network: UNet, take_step: OptimiserStep, steps: range, precision: PrecisionName) -> list[float]:
    loss = Loss(LossConfig())
    losses = []
    for step in steps:
        image, regions = _task(step)
        with choose_precision(CPU, precision).autocast(CPU):
            outputs = network(image)
        value = loss(outputs, regions)
        take_step.backward(value)
        losses.append(take_step.update().loss)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_small_network_learns_nested_regions_in_every_precision(precision: PrecisionName) -> None:
    network, _, take_step = _start(precision)
    losses = _train(network, take_step, range(40), precision)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    counts = ThresholdCounts(3)
    for seed in (1000, 1001):
        image, regions = _task(seed)
        probabilities = sliding_window_probabilities(
            lambda x: network.eval()(x)[0], image.transpose(0, 1), window=(16, 16), batch_size=4
        )
        counts.update(str(seed), probabilities, regions.transpose(0, 1))
    assert counts.best_per_region().mean_iou > 0.62


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(precision: PrecisionName, tmp_path: Path) -> None:
    network, optimiser, take_step = _start(precision)
    _train(network, take_step, range(5), precision)
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "step": take_step.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    wanted = _train(network, take_step, range(5, 10), precision)

    again, optimiser, take_step = _start(precision)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    take_step.load_state_dict(state["step"])
    assert _train(again, take_step, range(5, 10), precision) == wanted
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
