"""local.yaml against Ray's schema and beside aws.yaml, with which it shares what both do."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ray_jobs.settings.presets import preset
from ray_jobs.training.planning import check_world_sizes

CLUSTER = Path(__file__).parents[2] / "cluster"


@pytest.fixture
def local() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CLUSTER / "local.yaml").read_text())
    return loaded


def test_ray_takes_it(local: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(local))
    validate_config(prepared)
    (kind,) = prepared["available_node_types"].values()
    assert kind["max_workers"] == len(local["provider"]["worker_ips"])


def test_the_same_files_travel_as_to_aws(local: dict[str, Any], aws: dict[str, Any]) -> None:
    there = {remote.removeprefix("/home/ubuntu/"): source for remote, source in aws["file_mounts"].items()}
    assert {remote.removeprefix("~/"): source for remote, source in local["file_mounts"].items()} == there
    assert local["rsync_exclude"] == aws["rsync_exclude"]


def test_the_head_trains_nothing_and_listens_on_loopback(local: dict[str, Any]) -> None:
    (start,) = [text for text in local["head_start_ray_commands"] if "ray start" in text]
    for option in ("--num-cpus=0", "--num-gpus=0", "tune_driver", "--dashboard-host=127.0.0.1"):
        assert option in start
    assert "RAY_AUTH_MODE=token" in local["setup_commands"][0]


def test_the_environment_fits_the_preset(local: dict[str, Any]) -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", local["setup_commands"][0]))
    count = int(environment["BRATS_WORKERS"])
    check_world_sizes(preset(environment["BRATS_PRESET"]), count, count)
    assert environment["BRATS_STORE"].rsplit("/", 1)[0] == environment["BRATS_RUNS"].rsplit("/", 1)[0]
