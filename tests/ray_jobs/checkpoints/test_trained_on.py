"""What a checkpoint says of its task is read again, whatever the task."""

import json
from pathlib import Path

import pytest

from ray_jobs.checkpoints.trained_on import decode_task, describe_task
from storage import TASKS, InputError, create_store
from storage.labels.conventions import custom_convention


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_read_as_it_was_described(name: str, tmp_path: Path) -> None:
    described = json.loads(json.dumps(describe_task(create_store(tmp_path / "store", task=TASKS[name]))))
    assert decode_task(described, "here") == TASKS[name]
    described["task"]["name"] = "of a later year"
    later = decode_task(described, "here")
    assert later.regions == TASKS[name].regions and later.convention == TASKS[name].convention
    assert (later.scans, later.skull_stripped) == (TASKS[name].scans, TASKS[name].skull_stripped)


def test_values_that_were_told_are_read_again(tmp_path: Path) -> None:
    told = custom_convention({1: 2, 2: 1, 3: 3})
    described = describe_task(create_store(tmp_path / "store", convention=told))
    described["task"]["name"] = "custom"
    assert decode_task(described, "here").convention == told


def test_what_only_a_later_version_knows_is_refused(tmp_path: Path) -> None:
    described = describe_task(create_store(tmp_path / "store"))
    described["task"]["label_convention"] = "met-2031"
    with pytest.raises(InputError, match=r"here was made by another version: wanted .* found met-2031"):
        decode_task(described, "here")
