"""local.yaml against Ray's schema and beside aws.yaml, with which it shares what both do."""

import copy
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ray_jobs.settings.presets import preset
from ray_jobs.training.gentle_stop import SECONDS_TO_SAVE
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


@pytest.mark.processes
def test_all_speak_over_the_network_that_is_named(local: dict[str, Any], tmp_path: Path) -> None:
    """A machine with two networks takes the one of the other machines; one that is not in it is refused."""
    (command,) = [text for text in local["setup_commands"] if "BRATS_ADDRESS" in text]
    (tmp_path / "bin").mkdir()
    tool, line = tmp_path / "bin" / "ip", "3: eth1    inet 192.0.2.11/24 brd 192.0.2.255 scope global eth1"
    tool.write_text(f'#!/bin/bash\n[ "$*" = "-4 -oneline address show to 192.0.2.0/24" ] && echo "{line}"\n')
    tool.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], env=environment, check=True)
    said = (tmp_path / "brats.env").read_text()
    assert said == "export BRATS_ADDRESS=192.0.2.11 NCCL_SOCKET_IFNAME=eth1 GLOO_SOCKET_IFNAME=eth1\n"
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert sum("--node-ip-address=$BRATS_ADDRESS" in text for text in local[part]) == 1
    (tmp_path / "brats.env").unlink()
    tool.write_text("#!/bin/bash\n")
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "set-up failed: no address in the network" in done.stdout


def test_a_stopped_job_has_the_time_that_a_run_takes_to_save(local: dict[str, Any], aws: dict[str, Any]) -> None:
    pods = (CLUSTER / "kuberay.yaml").read_text()
    said = [" ".join(each["setup_commands"]) for each in (local, aws)] + [pods.replace(', value: "', "=")]
    for text in said:
        (seconds,) = re.findall(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", text)
        assert int(seconds) >= SECONDS_TO_SAVE + 10


def test_machines_of_ones_own_never_leave(local: dict[str, Any]) -> None:
    (kind,) = prepare_config(copy.deepcopy(local))["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"]


def test_the_environment_fits_the_preset(local: dict[str, Any]) -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", local["setup_commands"][0]))
    count = int(environment["BRATS_WORKERS"])
    check_world_sizes(preset(environment["BRATS_PRESET"]), count, count)
    assert environment["BRATS_STORE"].rsplit("/", 1)[0] == environment["BRATS_RUNS"].rsplit("/", 1)[0]
