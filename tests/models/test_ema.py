"""The average of weights: what it is, and that it comes and goes in place."""

import pytest
import torch
from torch import nn

from models import WeightAverage


def follow(layer: nn.Linear, average: WeightAverage, values: list[float]) -> None:
    for value in values:
        nn.init.constant_(layer.weight, value)
        average.update()


def test_the_average_follows_the_weights() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    average = WeightAverage(layer, decay=0.5)
    follow(layer, average, [2.0, 3.0])
    first = 0.1 * 1.0 + 0.9 * 2.0  # (1 + 0) / (10 + 0) is below 0.5
    second = 2 / 11 * first + 9 / 11 * 3.0
    with average.in_use():
        assert layer.weight.item() == pytest.approx(second)
    assert layer.weight.item() == 3.0


def test_late_updates_use_the_decay_itself() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, decay=0.5)
    follow(layer, average, [4.0] * 100 + [0.0])
    with average.in_use():
        assert layer.weight.item() == pytest.approx(2.0)


def test_the_weights_come_back_after_an_error_and_are_the_same_tensors() -> None:
    layer = nn.Linear(2, 2)
    average = WeightAverage(layer, decay=0.9)
    place, before = layer.weight.data_ptr(), layer.weight.detach().clone()
    with pytest.raises(RuntimeError, match="inside"), average.in_use():
        raise RuntimeError("inside")
    assert layer.weight.data_ptr() == place
    assert torch.equal(layer.weight, before)


def test_a_restored_average_goes_on() -> None:
    layer, other_layer = nn.Linear(2, 2), nn.Linear(2, 2)
    first = WeightAverage(layer, decay=0.9)
    follow(layer, first, [1.0, 2.0])
    second = WeightAverage(other_layer, decay=0.9)
    second.load_state_dict(first.state_dict())
    follow(layer, first, [5.0])
    follow(other_layer, second, [5.0])
    with first.in_use(), second.in_use():
        assert torch.equal(layer.weight, other_layer.weight)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        WeightAverage(nn.Linear(1, 1), decay)
