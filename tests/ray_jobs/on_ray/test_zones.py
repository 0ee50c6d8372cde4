"""Ranks in different zones are told of; those in one, on one machine or off EC2 are not."""

from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.on_ray import zones
from ray_jobs.on_ray.metadata_service import ZONE
from ray_jobs.on_ray.zones import describe_zones, find_zone, tell_of_zones


@pytest.mark.parametrize("found", [[None, None], ["us-west-2a"] * 2, ["us-west-2a", None]])
def test_nothing_to_tell(found: list[str | None]) -> None:
    assert describe_zones(found) is None


def test_who_is_where(fake_metadata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_metadata.answers[ZONE] = (200, "us-west-2b")
    monkeypatch.setattr(zones, "from_every_rank", lambda own, _session: ["us-west-2a", own, "us-west-2a"])
    told: list[Any] = []
    session = SimpleNamespace(rank=0, world_size=3, ranks_here=1, tell=told.append)
    tell_of_zones(session, fake_metadata.url)  # type: ignore[arg-type]
    (news,) = told
    assert "2 zones (us-west-2a has 0, 2; us-west-2b has 1)" in news.message
    assert "as cluster/aws.yaml has them" in news.message
    session.rank = 1
    tell_of_zones(session, fake_metadata.url)  # type: ignore[arg-type]
    assert len(told) == 1


def test_one_machine_asks_nobody(fake_metadata: Any) -> None:
    tell_of_zones(SimpleNamespace(rank=0, world_size=4, ranks_here=4), fake_metadata.url)  # type: ignore[arg-type]
    assert fake_metadata.asked == []


def test_off_ec2_there_is_no_zone() -> None:
    assert find_zone("http://127.0.0.1:9") is None
