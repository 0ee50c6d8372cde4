"""Learning-rate schedules: what they give, and that they go on where they were."""

import pytest
import torch

from ray_jobs.settings.groups import OptimiserConfig
from ray_jobs.training.optimiser import Schedule, build_optimiser
from storage import InputError


def make(config: OptimiserConfig, steps: int = 100) -> tuple[torch.optim.Optimizer, Schedule]:
    optimiser = build_optimiser(config, torch.nn.Linear(2, 2))
    return optimiser, Schedule(config, optimiser, steps)


def walk(optimiser: torch.optim.Optimizer, schedule: Schedule, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(schedule.learning_rate)
        optimiser.step()
        schedule.after_step()
    return rates


def test_poly_rises_then_falls_to_zero() -> None:
    rates = walk(*make(OptimiserConfig(learning_rate=0.5, warmup_steps=10)), 100)
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == pytest.approx(0.5 * (1 - 9 / 100) ** 0.9)
    assert rates[99] == pytest.approx(0.5 * 0.01**0.9)
    assert max(rates) == rates[9]


def test_cosine_is_half_way_down_in_the_middle() -> None:
    rates = walk(*make(OptimiserConfig(learning_rate=0.5, schedule="cosine", warmup_steps=0)), 100)
    assert rates[0] == pytest.approx(0.5)
    assert rates[50] == pytest.approx(0.25)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[99] < 0.001


def test_plateau_cuts_to_a_tenth_after_ten_validations_without_gain() -> None:
    _, schedule = make(OptimiserConfig(learning_rate=0.5, schedule="plateau", warmup_steps=0))
    schedule.after_validation(0.7)
    for _ in range(10):
        schedule.after_validation(0.6)
        assert schedule.learning_rate == 0.5
    schedule.after_validation(0.6)
    assert schedule.learning_rate == pytest.approx(0.05)


@pytest.mark.parametrize("schedule", ["poly", "cosine", "plateau"])
def test_a_restored_schedule_goes_on(schedule: str) -> None:
    config = OptimiserConfig(schedule=schedule, warmup_steps=0)
    optimiser, first = make(config)
    walk(optimiser, first, 7)
    for score in (0.5, 0.4, 0.4):
        first.after_validation(score)
    other_optimiser, second = make(config)
    other_optimiser.load_state_dict(optimiser.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(12):
        first.after_validation(0.1)
        second.after_validation(0.1)
    assert walk(optimiser, first, 5) == walk(other_optimiser, second, 5)


def test_plateau_with_warm_up_is_refused() -> None:
    with pytest.raises(InputError, match="warmup"):
        OptimiserConfig(schedule="plateau", warmup_steps=5)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0])
def test_an_average_that_never_moves_or_never_remembers_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="ema-decay"):
        OptimiserConfig(ema_decay=decay)
