"""aws.yaml against what will read it: Ray's schema, EC2's RunInstances, the catalogue of instance types."""

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
import ray.autoscaler
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from ray_jobs.on_ray.places import find_places
from ray_jobs.settings.config import NOT_PART_OF_A_RUN
from ray_jobs.settings.presets import preset
from ray_jobs.training.planning import check_world_sizes

ROOT = Path(__file__).parents[2]
TYPES = ("g4dn.xlarge", "g4dn.2xlarge", "g4dn.4xlarge", "g4dn.8xlarge", "g4dn.12xlarge")
FIRST = "spot_xlarge_a"
Change = Callable[[dict[str, Any]], Any]


def check_with_ray(cluster: dict[str, Any]) -> dict[str, Any]:
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    unknown = cluster["provider"].keys() - schema["properties"]["provider"]["properties"].keys()
    if unknown:  # the one place where Ray lets anything pass
        raise ValueError(f"provider: {unknown}")
    return prepared


def check_with_ec2(node_config: dict[str, Any]) -> str:
    """What botocore finds wrong with `node_config` as arguments of RunInstances; empty when nothing."""
    node_config = dict(node_config)
    subnets = node_config.pop("SubnetIds", ["subnet-1"])  # Ray takes one of them
    node_config["SubnetId"], *_ = subnets
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    unknown = sorted(set(node_config) - set(shape.members))
    report: str = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape).generate_report()
    return report + (f" unknown: {', '.join(unknown)}" if unknown else "")


def workers(cluster: dict[str, Any]) -> dict[str, Any]:
    return {name: kind for name, kind in cluster["available_node_types"].items() if name != cluster["head_node_type"]}


def variables(cluster: dict[str, Any]) -> dict[str, str]:
    """What the set-up commands put into every job's environment."""
    (command,) = [text for text in cluster["setup_commands"] if "brats.env" in text]
    return dict(re.findall(r"(\w+)=(\S+)", command))


def test_ray_takes_it(aws: dict[str, Any]) -> None:
    prepared = check_with_ray(aws)
    assert prepared["available_node_types"]["head"]["resources"]["CPU"] == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.update(idle_timeout_minute=3),
        lambda c: c["provider"].update(regoin="us-west-2"),
        lambda c: c["available_node_types"][FIRST].update(max_worker=3),
        lambda c: c["available_node_types"]["head"].update(resources={"CPU": 0.5}),
        lambda c: c.update(head_node_type="nobody"),
        lambda c: c["available_node_types"][FIRST].update(min_workers=9),
    ],
)
def test_ray_would_find_a_slip(aws: dict[str, Any], spoil: Change) -> None:
    spoil(aws)
    with pytest.raises(Exception, match=r"."):
        check_with_ray(aws)


def test_ec2_takes_every_node(aws: dict[str, Any]) -> None:
    for name, kind in aws["available_node_types"].items():
        assert check_with_ec2(kind["node_config"]) == "", name


@pytest.mark.parametrize(
    "spoil",
    [
        lambda n: n.update(InstnceType="g4dn.xlarge"),
        lambda n: n.update(BlockDeviceMappings={"DeviceName": "/dev/sda1"}),
        lambda n: n["BlockDeviceMappings"][0]["Ebs"].update(VolumSize=3),
        lambda n: n["MetadataOptions"].update(HttpTokens=1),
    ],
)
def test_ec2_would_find_a_slip(aws: dict[str, Any], spoil: Change) -> None:
    node = copy.deepcopy(aws["available_node_types"][FIRST]["node_config"])
    spoil(node)
    assert check_with_ec2(node)


@pytest.mark.usefixtures("amazon")
def test_instance_types_are_in_the_catalogue_as_the_comments_say(aws: dict[str, Any]) -> None:
    comments = (ROOT / "cluster" / "aws.yaml").read_text()
    head = aws["available_node_types"]["head"]["node_config"]["InstanceType"]
    ec2 = boto3.client("ec2", region_name=aws["provider"]["region"])
    found = ec2.describe_instance_types(InstanceTypes=[*TYPES, head])["InstanceTypes"]
    catalogue = {item["InstanceType"]: item for item in found}
    assert {kind["node_config"]["InstanceType"] for kind in workers(aws).values()} == set(TYPES)
    for kind in TYPES:
        item, name = catalogue[kind], f"spot_{kind.removeprefix('g4dn.')}_a"
        (gpu,) = item["GpuInfo"]["Gpus"]
        assert gpu["Name"] == "T4"
        said = comments[: comments.index(f"\n  {name}:")].rsplit("\n", 1)[-1]
        assert f"{'One T4' if gpu['Count'] == 1 else 'Four T4s'}" in said
        assert f"{item['VCpuInfo']['DefaultVCpus']} vCPU" in said
        assert f"{item['MemoryInfo']['SizeInMiB'] // 1024} GiB" in said
        assert f"{item['InstanceStorageInfo']['TotalSizeInGB']} GB" in said
    for kind in workers(aws).values():  # what keeps as many workers to a place as it has GPUs
        (gpu,) = catalogue[kind["node_config"]["InstanceType"]]["GpuInfo"]["Gpus"]
        assert list(kind["resources"].values()) == [gpu["Count"]]
    assert "GpuInfo" not in catalogue[head]
    offered = ec2.describe_instance_type_offerings(LocationType="availability-zone")["InstanceTypeOfferings"]
    zones = {offer["Location"] for offer in offered if offer["InstanceType"] == "g4dn.xlarge"}
    assert set(aws["provider"]["availability_zone"].split(",")) <= zones


def test_workers_come_from_zero_and_leave_nothing_that_is_paid_for(aws: dict[str, Any]) -> None:
    for name, kind in workers(aws).items():
        assert kind["min_workers"] == 0, name
    assert "InstanceMarketOptions" not in aws["available_node_types"]["head"]["node_config"]
    assert 0 < aws["idle_timeout_minutes"] <= 30
    assert aws["provider"]["cache_stopped_nodes"] is False


def test_places_are_tried_by_zone_then_by_type_and_on_demand_last(aws: dict[str, Any], tmp_path: Path) -> None:
    (file := tmp_path / "head").write_text(json.dumps(with_devices(aws)))
    tried = [place.about for place in find_places(file, workers=4, use_gpu=True)]
    zones = aws["provider"]["availability_zone"].split(",")
    kinds = ("spot g4dn.xlarge", "spot g4dn.2xlarge", "on-demand g4dn.xlarge")
    assert tried == [f"{kind} in {zone}" for kind in kinds for zone in zones]
    for name, kind in workers(aws).items():
        spot = kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        assert name.startswith("spot_") == spot
        assert kind["priority"] == int(spot)  # for what needs no gang


def with_devices(cluster: dict[str, Any]) -> dict[str, Any]:
    """As Ray fills it out, by the catalogue."""
    for kind in workers(cluster).values():
        kind["resources"] |= {"CPU": 4, "GPU": max(kind["resources"].values())}
    return cluster


def test_what_shuts_itself_down_is_gone_and_each_machine_would(aws: dict[str, Any]) -> None:
    for name, kind in aws["available_node_types"].items():
        node = kind["node_config"]
        assert node["InstanceInitiatedShutdownBehavior"] == "terminate", name
        assert node["UserData"] == "#!/bin/bash\nshutdown -h +30\n", name  # until switch_off.sh takes over
    for part, kind in (("head_start_ray_commands", "head"), ("worker_start_ray_commands", "worker")):
        assert f"cluster/node/switch_off.sh {kind}" in aws[part][0]
        assert "setsid --fork flock --nonblock" in aws[part][0]
    environment = variables(aws)
    assert 0 < int(environment["BRATS_WORKER_ALONE_MINUTES"]) <= 10
    assert 0 < int(environment["BRATS_HEAD_IDLE_MINUTES"]) <= 60


def test_a_gang_is_in_one_zone_and_speaks_over_plain_sockets(aws: dict[str, Any]) -> None:
    for name, kind in workers(aws).items():
        assert list(kind["resources"]) == [name]
        assert kind["node_config"]["Placement"]["AvailabilityZone"] in aws["provider"]["availability_zone"].split(",")
        assert len(kind["node_config"]["SubnetIds"]) == 1
    environment = variables(aws)
    assert environment["NCCL_NET_PLUGIN"] == "none"
    assert environment["NCCL_SOCKET_IFNAME"] == "^lo,docker"


def test_the_environment_fits_preset_and_cluster(aws: dict[str, Any]) -> None:
    """The cluster can grow to as many workers as jobs ask for, and the preset's batch divides among them."""
    environment = variables(aws)
    config, count = preset(environment["BRATS_PRESET"]), int(environment["BRATS_WORKERS"])
    check_world_sizes(config, count, count)
    assert count <= min(workers(aws)[FIRST]["max_workers"], aws["max_workers"])
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == aws["provider"]["region"]
    for name in ("BRATS_STORE", "BRATS_RUNS"):
        assert environment[name].startswith("s3://")
        assert name.removeprefix("BRATS_").lower() in NOT_PART_OF_A_RUN


@pytest.mark.processes
def test_every_file_that_travels_is_there_and_enough_to_install_from(aws: dict[str, Any]) -> None:
    mounts = {
        remote.removeprefix("/home/ubuntu/brats-stream/"): local
        for remote, local in aws["file_mounts"].items()
        if "brats-stream" in remote
    }
    for remote, local in mounts.items():
        assert remote == local
        assert (ROOT / local).exists()
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(mounts)
    for name in re.findall(r"cluster/node/[\w.]+", str(aws)):
        script = name.split()[0]
        assert subprocess.run(["bash", "-n", ROOT / script]).returncode == 0
        assert "cluster/node" in mounts
