"""The ranks' machines are found and counted; ranks in different zones are told of, others are not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.on_ray import machines, planned_machines
from ray_jobs.on_ray.machines import Place, describe_zones, find_place, look_around
from ray_jobs.on_ray.metadata_service import INSTANCE_TYPE, LIFE_CYCLE, ZONE
from ray_jobs.on_ray.planned_machines import OTHER_ADDRESS
from ray_jobs.settings.prices import Machine

SPOT = Machine(kind="g4dn.xlarge", spot=True)


@pytest.mark.parametrize("found", [[None, None], ["us-west-2a"] * 2, ["us-west-2a", None]])
def test_nothing_to_tell(found: list[str | None]) -> None:
    assert describe_zones(found) is None


def test_who_is_where_and_on_what(fake_metadata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_metadata.answers |= {ZONE: (200, "us-west-2b"), INSTANCE_TYPE: (200, "g4dn.xlarge"), LIFE_CYCLE: (200, "spot")}
    others = [Place(host=host, zone="us-west-2a", machine=SPOT) for host in ("one", "two", "two")]
    monkeypatch.setattr(machines, "from_every_rank", lambda own, _session: [others[0], own, *others[1:]])
    monkeypatch.setenv(OTHER_ADDRESS, fake_metadata.url)
    told: list[Any] = []
    session = SimpleNamespace(rank=0, world_size=4, ranks_here=1, tell=told.append)
    assert look_around(session) == [SPOT] * 3  # two ranks share one
    (news,) = told
    assert "2 zones (us-west-2a has 0, 2, 3; us-west-2b has 1)" in news.message
    assert "as cluster/aws.yaml has them" in news.message
    session.rank = 1
    look_around(session)
    assert len(told) == 1


def test_one_machine_that_is_not_aws_s_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OTHER_ADDRESS, raising=False)
    monkeypatch.setattr(planned_machines, "VENDOR", tmp_path / "none")
    monkeypatch.setattr(machines, "find_place", lambda url: pytest.fail(f"asked {url}"))
    assert look_around(SimpleNamespace(rank=0, world_size=4, ranks_here=4)) == [None]  # type: ignore[arg-type]
    (tmp_path / "none").write_text("Amazon EC2\n")
    monkeypatch.setattr(machines, "find_place", lambda url: Place(host="here", machine=SPOT))
    monkeypatch.setattr(machines, "from_every_rank", lambda own, _session: [own])
    assert look_around(SimpleNamespace(rank=0, world_size=4, ranks_here=4)) == [SPOT]  # type: ignore[arg-type]


def test_off_ec2_there_is_neither_zone_nor_price() -> None:
    found = find_place("http://127.0.0.1:9")
    assert (found.zone, found.machine) == (None, None)
    assert Machine(kind="x9.large", spot=True).dollars is None
    assert SPOT.dollars == pytest.approx(0.273)
    assert Machine(kind="g4dn.xlarge", spot=False).dollars == pytest.approx(0.547)
