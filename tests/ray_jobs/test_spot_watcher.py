"""The watcher between a fake metadata service and a drain that only counts, and once with a real cluster."""

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ray_jobs import spot_watcher
from ray_jobs.on_ray.draining import DrainError, RayNode
from ray_jobs.spot_watcher import SpotWatcherConfig, watch
from storage import InputError

ROOT = Path(__file__).parents[2]


@dataclass
class Drains:
    """Counts drains; fails as often as it is told."""

    failures: int = 0
    calls: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, seconds_left: float, reason: str) -> None:
        if self.failures:
            self.failures -= 1
            raise DrainError("the cluster could not be told")
        self.calls.append((seconds_left, reason))


class EnoughError(Exception):
    """Ends a watch that would go on for ever."""


def watch_rounds(config: SpotWatcherConfig, drains: Drains, script: list[object], monkeypatch) -> bool:
    """Watch; between rounds call what `script` holds. Returns whether the watch ended by itself."""
    steps = iter(script)

    def sleep(seconds: float) -> None:
        assert seconds == config.every_seconds
        step = next(steps, EnoughError)
        if step is EnoughError:
            raise EnoughError
        if step is not None:
            step()  # type: ignore[operator]

    monkeypatch.setattr(time, "sleep", sleep)
    try:
        watch(config, drains)
    except EnoughError:
        return False
    return True


def notice_in(seconds: float) -> str:
    then = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f'{{"action": "terminate", "time": "{then}"}}'


def test_a_notice_drains_once_with_the_time_that_is_left(fake_metadata: Any, monkeypatch) -> None:
    drains = Drains()
    config = SpotWatcherConfig(metadata_url=fake_metadata.url)
    assert watch_rounds(config, drains, [None, None, lambda: fake_metadata.give_notice(notice_in(100))], monkeypatch)
    ((seconds_left, reason),) = drains.calls
    assert 97 < seconds_left <= 100
    assert reason.startswith("spot interruption: terminate at 2")


def test_a_drain_that_fails_is_tried_again(fake_metadata: Any, monkeypatch) -> None:
    drains = Drains(failures=2)
    fake_metadata.give_notice(notice_in(100))
    assert watch_rounds(SpotWatcherConfig(metadata_url=fake_metadata.url), drains, [None, None], monkeypatch)
    assert len(drains.calls) == 1


def test_a_rebalance_recommendation_is_logged_once(fake_metadata: Any, monkeypatch, caplog) -> None:
    drains = Drains()
    fake_metadata.recommend_rebalancing()
    with caplog.at_level(logging.INFO, "spot_watcher"):
        assert not watch_rounds(SpotWatcherConfig(metadata_url=fake_metadata.url), drains, [None, None], monkeypatch)
    assert drains.calls == []
    assert [record.message.split(":")[0] for record in caplog.records] == ["AWS recommends to rebalance"]


def test_a_rebalance_recommendation_drains_where_that_is_wanted(fake_metadata: Any, monkeypatch) -> None:
    drains = Drains()
    config = SpotWatcherConfig(metadata_url=fake_metadata.url, on_rebalance="drain")
    assert watch_rounds(config, drains, [fake_metadata.recommend_rebalancing], monkeypatch)
    assert drains.calls == [(120.0, "EC2 rebalance recommendation")]


def test_trouble_is_told_in_one_line_and_the_watch_goes_on(fake_metadata: Any, monkeypatch, caplog) -> None:
    drains = Drains()
    fake_metadata.give_notice("<html>")
    script = [None, None, fake_metadata.answers.clear, None, lambda: fake_metadata.give_notice(notice_in(60))]
    with caplog.at_level(logging.WARNING, "spot_watcher"):
        assert watch_rounds(SpotWatcherConfig(metadata_url=fake_metadata.url), drains, script, monkeypatch)
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert "wanted an interruption notice as JSON" in lines[0]
    assert lines[1] == "all is well again; asking again every 5 s"
    assert lines[2].startswith("spot interruption")


def test_off_ec2_it_says_so_once_and_keeps_asking(monkeypatch, caplog) -> None:
    config = SpotWatcherConfig(metadata_url="http://127.0.0.1:9")
    with caplog.at_level(logging.INFO, "spot_watcher"):
        assert not watch_rounds(config, Drains(), [None, None], monkeypatch)
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("no instance metadata service answers at http://127.0.0.1:9")


def test_a_pod_that_must_go_drains_at_once_and_stays_as_long(monkeypatch) -> None:
    """Kubernetes waits for its preStop command, and the pod's training saves meanwhile."""
    node, done = RayNode(address="192.0.2.1:6379", node_id="ab"), []
    monkeypatch.setattr(spot_watcher, "find_node", lambda _address, _node: node)
    monkeypatch.setattr(spot_watcher, "drain", lambda found, **rest: done.append((found, rest["seconds_left"])))
    monkeypatch.setattr(spot_watcher.time, "sleep", done.append)
    assert spot_watcher.main(["--leave-in", "100"]) == 0
    assert done == [(node, 100.0), 100.0]


@pytest.mark.parametrize("wrong", [{"every_seconds": 0.0}, {"metadata_url": "169.254.169.254"}, {"leave_in": -1.0}])
def test_impossible_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"--(every-seconds|metadata-url|leave-in) must"):
        SpotWatcherConfig(**wrong)  # type: ignore[arg-type]
