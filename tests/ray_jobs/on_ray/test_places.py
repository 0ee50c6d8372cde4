"""Which place a gang is asked for, and when it moves."""

import json
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.on_ray.places import (
    SECONDS_AT_A_PLACE,
    Choice,
    Place,
    Refusals,
    find_places,
    most_workers_at_a_place,
)
from storage import InputError

SPOT, SECOND, DEMAND = (Place(name=name, about=name, workers_a_machine=1) for name in ("spot_a", "spot_b", "demand_a"))


def test_a_place_that_gives_all_is_stayed_at_however_long_its_set_up_takes() -> None:
    choice = Choice([SPOT, SECOND], needed=2, now=0)
    for now in range(0, 3600, 60):
        assert choice.look(now, there=0, coming=2, refusal=None) is None
    assert choice.look(3601, there=1, coming=1, refusal="what was asked for before") is None
    assert choice.place == SPOT


def test_a_place_that_refuses_is_left_at_once_by_all_with_the_reason() -> None:
    choice = Choice([SPOT, SECOND, DEMAND], needed=2, now=0)
    assert choice.look(20, there=1, coming=0, refusal=None) is None  # the rest is still asked for
    said = choice.look(21, there=1, coming=0, refusal="InsufficientInstanceCapacity")
    assert said == "spot_a gives 1 of 2 workers (InsufficientInstanceCapacity): all go to spot_b"
    assert choice.place == SECOND
    assert choice.left == {"spot_a"}


def test_a_place_that_says_nothing_has_its_time_from_when_it_was_asked() -> None:
    choice = Choice([SPOT, SECOND, DEMAND], needed=2, now=0)
    assert choice.look(SECONDS_AT_A_PLACE - 1, there=0, coming=0, refusal=None) is None
    assert choice.look(SECONDS_AT_A_PLACE, there=0, coming=0, refusal=None) is not None
    assert choice.look(2 * SECONDS_AT_A_PLACE - 1, there=0, coming=1, refusal=None) is None
    said = choice.look(2 * SECONDS_AT_A_PLACE, there=0, coming=1, refusal=None)
    assert said == f"spot_b gives 1 of 2 workers (no more within {SECONDS_AT_A_PLACE:g} s): all go to demand_a"


def test_a_loss_after_hours_leaves_the_place_its_whole_time() -> None:
    choice = Choice([SPOT, SECOND], needed=2, now=0)
    choice.ask_anew(7200)
    assert choice.look(7201, there=1, coming=0, refusal=None) is None
    assert choice.look(7200 + SECONDS_AT_A_PLACE, there=1, coming=0, refusal=None) is not None


def test_after_the_last_place_comes_the_first_whose_machines_are_kept_again() -> None:
    choice = Choice([SPOT, SECOND], needed=1, now=0)
    for now in (1, 2):
        assert choice.look(now, there=0, coming=0, refusal="x") is not None
    assert choice.place == SPOT
    assert choice.left == {"spot_b"}


def test_the_only_place_is_waited_for() -> None:
    assert Choice([SPOT], needed=1, now=0).look(10**6, there=0, coming=0, refusal="x") is None


def test_what_the_monitor_writes_of_a_place_is_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "monitor.log"
    line = "INFO node_provider.py:489 -- Failed to launch 1 nodes of type {}: {}\n"
    lacking = "Node Launch Exception (InsufficientInstanceCapacity): We do not have sufficient g4dn.xlarge capacity."
    log.write_text(line.format("spot_a", lacking))
    refusals = Refusals(log)
    assert refusals.last("spot_a") is None  # before this run's time
    with log.open("a") as file:
        file.write(line.format("spot_a2", lacking) + line.format("spot_a", "odd") + line.format("spot_a", lacking))
    assert refusals.last("spot_a") == "InsufficientInstanceCapacity"
    assert refusals.last("spot_a") is None
    with log.open("a") as file:
        file.write(line.format("spot_a", "who knows"))
    assert refusals.last("spot_a") == "who knows"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What Ray leaves on the head."""

    def kind(name: str, most: int, gpus: int, **more: Any) -> dict[str, Any]:
        node = {"InstanceType": "g4dn.xlarge", "Placement": {"AvailabilityZone": "us-west-2a"}}
        return {"resources": {"CPU": 4, "GPU": gpus, name: gpus}, "max_workers": most, "node_config": node | more}

    kinds = {
        "head": {"resources": {"CPU": 0}, "max_workers": 0, "node_config": {"InstanceType": "m5.xlarge"}},
        "spot_a": kind("spot_a", 9, 1, InstanceMarketOptions={"MarketType": "spot"}),
        "off": kind("off", 0, 1),
        "small": kind("small", 1, 1),
        "four": kind("four", 1, 4),
    }
    path = tmp_path / "ray_bootstrap_config.yaml"
    path.write_text(json.dumps({"max_workers": 4, "available_node_types": kinds}))
    return path


def test_places_are_those_that_hold_the_run_in_the_files_order(file: Path) -> None:
    found = find_places(file, workers=4, use_gpu=True)
    assert [(place.name, place.about, place.workers_a_machine) for place in found] == [
        ("spot_a", "spot g4dn.xlarge in us-west-2a", 1),
        ("four", "on-demand g4dn.xlarge in us-west-2a", 4),
    ]
    assert found[1].per_worker(use_gpu=True) == {"GPU": 1, "four": 1}
    assert [place.name for place in find_places(file, workers=1, use_gpu=False)] == ["spot_a", "small", "four"]


def test_a_run_that_no_place_holds_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match=r"wanted a place for 5 workers .* holds 4: give --workers 4, or raise"):
        find_places(file, workers=5, use_gpu=True)


@pytest.mark.parametrize(
    "text", [None, '{"provider": {"type": "local"}}', '{"available_node_types": {"a": {"resources": {"GPU": 1}}}}']
)
def test_a_cluster_without_places_has_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)
    assert find_places(tmp_path / "file", workers=9, use_gpu=True) == []


def test_a_search_has_as_many_workers_as_the_largest_place_holds(file: Path, tmp_path: Path) -> None:
    assert most_workers_at_a_place(file, use_gpu=True) == 4
    assert most_workers_at_a_place(tmp_path / "none", use_gpu=True) is None
