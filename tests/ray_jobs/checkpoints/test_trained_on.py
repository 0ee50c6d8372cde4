"""What a checkpoint says of its task is read again, whatever the task."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from ray_jobs.checkpoints.trained_on import decode_task, describe_task
from ray_jobs.predicting.predict_config import choose_task
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


def test_networks_of_two_tasks_are_not_averaged(tmp_path: Path) -> None:
    said = {
        name: describe_task(create_store(tmp_path / name, task=TASKS[name])) for name in ("gli-2021", "ssa", "men-rt")
    }
    glioma, africa, heads = (Mock(uri=name, read_json=Mock(return_value=said[name])) for name in said)
    assert choose_task([glioma, africa]) == TASKS["gli-2021"]  # whose regions are the same
    with pytest.raises(
        InputError, match=r"^men-rt was trained on men-rt \(GTV\), gli-2021 is .*: only networks of the "
    ):
        choose_task([glioma, heads])


def test_what_only_a_later_version_knows_is_refused(tmp_path: Path) -> None:
    described = describe_task(create_store(tmp_path / "store"))
    described["task"]["label_convention"] = "met-2031"
    with pytest.raises(InputError, match=r"here was made by another version: wanted .* found met-2031"):
        decode_task(described, "here")
