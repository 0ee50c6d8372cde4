"""What a rank shows, with Ray's metrics replaced by ones that only remember. tests/system watches a real run."""

import dataclasses
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from ray_jobs.on_ray import live_metrics
from ray_jobs.on_ray.live_metrics import LiveMetrics, gpu_memory

Sent = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """Everything that was sent: the metric's name, the number, all tags."""
    everything: Sent = []

    @dataclasses.dataclass
    class Metric:
        name: str
        description: str
        tag_keys: tuple[str, ...]
        boundaries: Any = None

        def set_default_tags(self, tags: dict[str, str]) -> None:
            self.tags = tags

        def set(self, value: float, tags: dict[str, str] | None = None) -> None:
            all_tags = {**self.tags, **(tags or {})}
            assert set(all_tags) == set(self.tag_keys)  # Ray refuses others
            everything.append((self.name, value, all_tags))

        inc = observe = set

    metrics: Any = ModuleType("ray.util.metrics")
    metrics.Gauge = metrics.Counter = metrics.Histogram = Metric
    for name in ("ray", "ray.util"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "ray.util.metrics", metrics)
    monkeypatch.setattr(live_metrics, "SECONDS_BETWEEN_REMINDERS", 0.01)
    yield everything


@pytest.fixture
def make(sent: Sent) -> Iterator[Any]:
    made: list[LiveMetrics] = []

    def make_one(rank: int) -> LiveMetrics:
        made.append(LiveMetrics("trial", rank))
        return made[-1]

    yield make_one
    for each in made:
        each.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "live-metrics"]


def test_a_figure_is_shown_again_and_again_at_its_last_value(make: Any, sent: Sent) -> None:
    metrics = make(0)
    metrics.show({"loss": 2.0})
    metrics.show({"loss": 1.0})
    settled = threading.Event()
    for _ in range(6000):
        if settled.wait(0.01) or [value for _, value, _ in sent].count(1.0) > 4:
            break
    values = [value for _, value, _ in sent]  # the first may have been repeated before the second was shown
    assert values[0] == 2.0
    assert values.count(1.0) > 4
    assert values == sorted(values, reverse=True)
    metrics.close()
    so_far = len(sent)
    assert not settled.wait(0.05)
    assert len(sent) == so_far


def test_figures_of_the_run_come_from_rank_0_alone(make: Any, sent: Sent) -> None:
    for rank in range(2):
        metrics = make(rank)
        metrics.show({"loss": 1.0, "learning_rate": 0.1, "no such figure": 3.0})
        metrics.show_scores({"iou_WT": 0.5, "dice_mean": 0.6, "epoch": 1.0})
        metrics.note_checkpoint()
        metrics.close()
    by_rank = {rank: {name for name, _, tags in sent if tags["rank"] == str(rank)} for rank in range(2)}
    assert by_rank[1] == {"brats_loss"}
    assert by_rank[0] == {
        *("brats_loss", "brats_learning_rate", "brats_iou", "brats_dice"),
        "brats_last_checkpoint_timestamp_seconds",
    }
    scores = {(name, tags["region"]): value for name, value, tags in sent if "region" in tags}
    assert scores == {("brats_iou", "WT"): 0.5, ("brats_dice", "mean"): 0.6}


def test_steps_are_counted_by_their_parts(make: Any, sent: Sent) -> None:
    metrics = make(1)
    metrics.count_steps([{"wait": 0.0, "forward": 1.0}, {"wait": 0.5, "forward": 1.0}], patches=3)
    tags = {"run": "trial", "rank": "1"}
    assert [each for each in sent if each[0] == "brats_patches_total"] == [("brats_patches_total", 3, tags)] * 2
    assert [value for name, value, _ in sent if name == "brats_step_seconds"] == [1.0, 1.5]
    parts = [(tags["part"], value) for name, value, tags in sent if name == "brats_part_seconds_total"]
    assert parts == [("forward", 1.0), ("wait", 0.5), ("forward", 1.0)]  # Ray refuses to count 0


def test_a_cpu_has_no_gpu_memory() -> None:
    assert gpu_memory(torch.device("cpu")) == {}
