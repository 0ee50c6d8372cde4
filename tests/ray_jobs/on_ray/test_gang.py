"""What Ray Train is told to do while a gang looks for its place, moves, and loses workers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision

from ray_jobs.on_ray import gang as gang_module
from ray_jobs.on_ray.draining import DrainError, RayNode
from ray_jobs.on_ray.gang import gang_policy
from ray_jobs.on_ray.places import Place

PLACES = [Place(name=name, about=name, workers_a_machine=1) for name in ("spot_a", "spot_b")]
HERE = "2026-11-29 INFO node_provider.py -- Failed to launch 1 nodes of type"


class World:
    """A cluster as the policy sees it: machines by name, with the place they are at and whether they work."""

    def __init__(self, log: Path, workers: int | tuple[int, int]) -> None:
        self.log, self.coming, self.machines, self.busy = log, 0, dict[str, str](), set[str]()
        self.told: list[str] = []
        self.asked: list[dict[str, float]] = []
        board = SimpleNamespace(tell=SimpleNamespace(remote=lambda news: self.told.append(news["message"])))
        self.policy: Any = gang_policy(ray.train.ScalingConfig(num_workers=workers), PLACES, log, board)
        note = lambda scaling, count: self.asked.append(scaling._resources_per_worker_not_none)  # noqa: E731
        self.policy._coordinator_client = SimpleNamespace(send_resource_request=note, maybe_send_resource_request=note)

    def start(self) -> None:
        self.policy._requester_id = "me"
        self.policy.after_controller_start(SimpleNamespace(run_id="1"))

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": name, "Resources": {at: 1.0}} for name, at in self.machines.items()]

    def room(self, place: Place, nodes: list[dict[str, Any]]) -> int:
        return sum(place.name in node["Resources"] and node["NodeID"] not in self.busy for node in nodes)

    def give_back(self, node: RayNode) -> None:
        if node.node_id in self.busy:
            raise DrainError("not idle")
        del self.machines[node.node_id]

    def decide(self) -> Any:
        return self.policy.make_decision_for_non_running_worker_group()

    def run(self) -> Any:
        self.busy = set(self.machines)
        return self.policy.make_decision_for_running_worker_group(SimpleNamespace(start_time=0.0), None)


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(workers: int | tuple[int, int], machines: dict[str, str] | None = None) -> World:
        world = World(tmp_path / "monitor.log", workers)
        world.machines |= machines or {}
        monkeypatch.setattr(gang_module.ray, "nodes", world.nodes)
        monkeypatch.setattr(gang_module.ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="head"))
        monkeypatch.setattr(gang_module, "room_at", world.room)
        monkeypatch.setattr(gang_module, "machines_coming", lambda _name: world.coming)
        monkeypatch.setattr(gang_module, "give_back", world.give_back)
        monkeypatch.setattr(gang_module.time, "sleep", lambda _seconds: None)
        client = world.policy._coordinator_client
        monkeypatch.setattr(
            "ray.train.v2._internal.execution.scaling_policy.scaling_policy.TrainAutoscalingCoordinatorClient",
            lambda _id: client,
        )
        world.start()
        return world

    return make


def refuse(world: World, place: str) -> None:
    with world.log.open("a") as file:
        file.write(f"{HERE} {place}: Node Launch Exception (InsufficientInstanceCapacity): none.\n")


def test_a_zone_that_gives_half_is_left_by_all_and_its_half_is_given_back(make_world: Any) -> None:
    world = make_world(2)
    assert world.asked[-1] == {"CPU": 1, "spot_a": 1}
    world.coming = 1
    assert isinstance(world.decide(), NoopDecision)
    world.coming, world.machines = 0, {"half": "spot_a"}
    assert isinstance(world.decide(), NoopDecision)
    assert world.machines == {"half": "spot_a"}
    refuse(world, "spot_a")
    assert isinstance(world.decide(), NoopDecision)
    said = "notice: spot_a gives 1 of 2 workers (InsufficientInstanceCapacity): all go to spot_b"
    assert world.told == [said]
    assert world.machines == {}
    assert world.asked[-1] == {"CPU": 1, "spot_b": 1}
    world.machines = {"one": "spot_b", "two": "spot_b"}
    decision = world.decide()
    assert (decision.num_workers, decision.resources_per_worker) == (2, {"CPU": 1, "spot_b": 1})


def test_what_is_left_of_lost_workers_ends_before_the_gang_moves(make_world: Any) -> None:
    """Else its machines could not be given back, and would hold the cluster's limit."""
    world = make_world(2)
    world.machines = {"one": "spot_a", "two": "spot_a"}
    assert isinstance(world.decide(), ResizeDecision)
    world.run()
    del world.machines["two"]
    refuse(world, "spot_a")
    assert isinstance(world.decide(), ResizeDecision)  # which ends the workers there are
    world.busy = set()
    assert isinstance(world.decide(), NoopDecision)
    assert world.policy.scaling_config.resources_per_worker == {"CPU": 1, "spot_b": 1}
    assert world.machines == {}


def test_a_run_begins_where_enough_idle_machines_are_left_of_another(make_world: Any) -> None:
    world = make_world(2, {"one": "spot_b", "two": "spot_b"})
    decision = world.decide()
    assert (decision.num_workers, decision.resources_per_worker) == (2, {"CPU": 1, "spot_b": 1})
    assert make_world(2, {"one": "spot_b"}).asked[-1] == {"CPU": 1, "spot_a": 1}


def test_machines_on_which_others_work_stay(make_world: Any) -> None:
    world = make_world(2)
    world.machines, world.busy = {"others": "spot_a"}, {"others"}
    refuse(world, "spot_a")
    world.decide()
    assert world.machines == {"others": "spot_a"}


def test_what_comes_late_to_a_place_that_was_left_is_given_back_while_the_run_trains(make_world: Any) -> None:
    world = make_world(1)
    refuse(world, "spot_a")
    world.decide()
    world.machines = {"one": "spot_b"}
    assert isinstance(world.decide(), ResizeDecision)
    world.run()
    world.machines["late"] = "spot_a"
    world.policy._next_look = 0.0
    world.busy = {"one"}
    world.policy.make_decision_for_running_worker_group(SimpleNamespace(start_time=0.0), None)
    assert world.machines == {"one": "spot_b"}


def test_a_run_that_may_have_fewer_stays_where_so_many_are(make_world: Any) -> None:
    world = make_world((1, 2))
    world.policy._get_reserved_resources = lambda: {"one": {"CPU": 1.0, "spot_a": 1.0}}
    world.machines = {"one": "spot_a"}
    refuse(world, "spot_a")
    decision = world.decide()
    assert (decision.num_workers, decision.resources_per_worker) == (1, {"CPU": 1, "spot_a": 1})
    assert world.told == []
