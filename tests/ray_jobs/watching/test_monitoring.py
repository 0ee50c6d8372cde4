"""The monitor without Ray and without a loader: losses, events, and what a resumed run still knows."""

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models import StepResult
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.watching import monitoring, pace
from ray_jobs.watching.monitoring import Monitor
from ray_jobs.watching.step_clock import StepClock

STEPS = 6


@dataclasses.dataclass
class Sampling:
    global_batch_size: int = 4


class Position:
    """As much of a loader as a monitor sees."""

    def __init__(self, epoch: int = 0, step: int = 0) -> None:
        self.epoch, self.step, self.steps_per_epoch = epoch, step, STEPS
        self.sampling = Sampling()


def monitor_in(folder: Path, loader: Any) -> Monitor:
    device = torch.device("cpu")
    return Monitor(LocalSession(folder, device), loader, StepClock(device), epochs=2)


def result_of(epoch: int, step: int) -> StepResult:
    loss = float(torch.tensor(0.1) / (1 + epoch * STEPS + step))  # an event holds a float32
    return StepResult(taken=True, gradient_norm=1.5, loss=loss)


def take_steps(monitor: Monitor, loader: Any, until: int = STEPS) -> None:
    monitor.start_epoch()
    while loader.step < until:
        result = result_of(loader.epoch, loader.step)
        loader.step += 1
        monitor.after_step(result, learning_rate=0.1 / loader.step)


def end_epoch(monitor: Monitor, loader: Any) -> dict[str, float]:
    loader.epoch, loader.step = loader.epoch + 1, 0
    return monitor.after_epoch(loader.epoch - 1, skipped_steps=0)


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


@pytest.mark.parametrize("seconds_between_news", [0.0, 1e9])
def test_every_steps_loss_is_written_once(
    seconds_between_news: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "SECONDS_BETWEEN_NEWS", seconds_between_news)
    loader: Any = Position()
    with monitor_in(tmp_path, loader) as monitor:
        for _ in range(2):
            take_steps(monitor, loader)
            end_epoch(monitor, loader)
    expected = [(1 + step, result_of(0, step).loss) for step in range(2 * STEPS)]
    assert scalars(tmp_path, "loss/step") == expected


@pytest.mark.parametrize("stopped_after", range(STEPS + 1))
def test_the_mean_loss_of_an_epoch_resumed_midway_is_that_of_one_left_alone(stopped_after: int, tmp_path: Path) -> None:
    def epoch_with(monitor: Monitor, loader: Any) -> dict[str, float]:
        take_steps(monitor, loader)
        return end_epoch(monitor, loader)

    whole: Any = Position()
    with monitor_in(tmp_path / "whole", whole) as monitor:
        alone = epoch_with(monitor, whole), epoch_with(monitor, whole)

    first: Any = Position()
    with monitor_in(tmp_path / "cut", first) as monitor:
        take_steps(monitor, first, until=stopped_after)
        saved = io.BytesIO()
        torch.save(monitor.state_dict(), saved)
    saved.seek(0)
    second: Any = Position(step=stopped_after)
    with monitor_in(tmp_path / "cut", second) as monitor:
        monitor.load_state_dict(torch.load(saved, weights_only=True))
        resumed = epoch_with(monitor, second), epoch_with(monitor, second)

    for left_alone, cut in zip(alone, resumed, strict=True):
        assert cut["loss"] == left_alone["loss"]  # bit for bit
        assert cut["learning_rate"] == left_alone["learning_rate"]


def test_the_parts_of_a_step_are_those_of_the_epochs_own_steps(tmp_path: Path) -> None:
    loader: Any = Position()
    clock = StepClock(torch.device("cpu"))
    with Monitor(LocalSession(tmp_path, torch.device("cpu")), loader, clock, epochs=2) as monitor:
        for seconds in (2.0, 0.5):
            monitor.start_epoch()
            for _ in range(STEPS):
                clock.seconds["forward"] += seconds
                loader.step += 1
                monitor.after_step(result_of(loader.epoch, loader.step), learning_rate=0.1)
            end_epoch(monitor, loader)
    assert scalars(tmp_path, "seconds_per_step/forward") == [(STEPS, 2.0), (2 * STEPS, 0.5)]


def test_a_resumed_run_takes_back_the_events_after_its_checkpoint(tmp_path: Path) -> None:
    lost: Any = Position()
    with monitor_in(tmp_path, lost) as monitor:
        take_steps(monitor, lost)
        end_epoch(monitor, lost)
    again: Any = Position(step=2)
    with monitor_in(tmp_path, again) as monitor:
        monitor.load_state_dict({"losses": [0.5, 0.5], "learning_rate": 0.1})
        take_steps(monitor, again, until=4)
    assert [step for step, _ in scalars(tmp_path, "loss/step")] == [1, 2, 3, 4]
    assert scalars(tmp_path, "epoch/loss") == []


def test_speed_counts_the_steps_of_this_start_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    loader: Any = Position(step=4)
    with monitor_in(tmp_path, loader) as monitor:
        monitor.load_state_dict({"losses": [0.5] * 4, "learning_rate": 0.1})
        take_steps(monitor, loader)
        now[0] = 4.0
        metrics = end_epoch(monitor, loader)
    assert metrics["patches_per_second"] == 2 * 4 / 4.0
    assert monitor.throughput()["patches_per_second"] == 2 * 4 / 4.0


def test_a_run_stopped_before_a_validation_knows_its_speed_and_shows_the_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], time=lambda: now[0], time_ns=lambda: int(1e9 * now[0]))
    monkeypatch.setattr(pace, "time", clock)
    lost: Any = Position()
    with monitor_in(tmp_path, lost) as monitor:
        take_steps(monitor, lost)
        now[0] = 4.0
        state = monitor.state_dict()
        before = end_epoch(monitor, lost)  # and then the validation that never ended
    again: Any = Position(step=STEPS)
    with monitor_in(tmp_path, again) as monitor:
        monitor.load_state_dict(state)
        take_steps(monitor, again)
        now[0] = 9.0
        assert end_epoch(monitor, again) == before
        assert before["patches_per_second"] == monitor.throughput()["patches_per_second"] == STEPS * 4 / 4.0
    assert scalars(tmp_path, "epoch/loss") == [(STEPS, pytest.approx(before["loss"]))]
    assert [step for step, _ in scalars(tmp_path, "loss/step")] == list(range(1, STEPS + 1))
