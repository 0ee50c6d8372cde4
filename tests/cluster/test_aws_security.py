"""What the cluster files open, and to whom; what they may carry; no secret in the repository."""

import ipaddress
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private.aws.config import _configure_security_group, _configure_subnet
from ray.autoscaler._private.util import prepare_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
# Keys and tokens as they look: AWS's, private keys, Ray's token (64 hex digits on a line of their own).
SECRETS = (
    r"\bA(KIA|SIA)[0-9A-Z]{16}\b",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    r"(?m)^[0-9a-f]{64}$",
    r"(?i)aws_secret_access_key\s*[=:]\s*['\"]?[A-Za-z0-9/+]{40}",
)


def documents() -> list[tuple[str, Any]]:
    return [
        (file.name, document) for file in CLUSTER.glob("*.yaml") for document in yaml.safe_load_all(file.read_text())
    ]


def strings(value: Any) -> list[str]:
    """Every string in `value`, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [str(value)]


def test_no_file_opens_a_port_to_the_world() -> None:
    assert documents()
    for name, document in documents():
        for text in strings(document):
            assert "::/0" not in text, name
            if name != "kuberay.yaml":  # a pod's own address, which no service opens: tests/cluster/test_kuberay.py
                assert "0.0.0.0" not in text, f"{name}: {text}"
            for network in re.findall(r"\b\d+\.\d+\.\d+\.\d+/\d+", text):
                assert ipaddress.ip_network(network).prefixlen >= 16, f"{name}: {network}"


def test_the_security_group_is_one_that_is_there(aws: dict[str, Any]) -> None:
    """By name Ray might look for it in another network, and would make one there with SSH from everywhere."""
    assert "security_group" not in aws["provider"]
    for kind in aws["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] == ["sg-00000000000000000"]  # account.py's to fill in
        assert not {"SecurityGroups", "NetworkInterfaces"} & kind["node_config"].keys()


@pytest.mark.usefixtures("amazon")
def test_ray_makes_no_security_group_of_its_own(aws: dict[str, Any]) -> None:
    """Ray's own preparation, in an account with a second network whose subnets come first."""
    ec2 = boto3.client("ec2", region_name="us-west-2")
    (default,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    other = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=other, CidrBlock="10.1.0.0/24", AvailabilityZone="us-west-2a")["Subnet"][
        "SubnetId"
    ]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    group = ec2.create_security_group(GroupName="brats-ray", Description="ours", VpcId=default["VpcId"])["GroupId"]
    before = ec2.describe_security_groups()["SecurityGroups"]
    inside = {"Name": "vpc-id", "Values": [default["VpcId"]]}
    subnets = {item["AvailabilityZone"]: item["SubnetId"] for item in ec2.describe_subnets(Filters=[inside])["Subnets"]}
    for name, kind in aws["available_node_types"].items():  # as account.py writes them
        kind["node_config"]["SecurityGroupIds"] = [group]
        if name != aws["head_node_type"]:
            kind["node_config"]["SubnetIds"] = [subnets[kind["node_config"]["Placement"]["AvailabilityZone"]]]
    prepared = _configure_security_group(_configure_subnet(prepare_config(aws)))
    assert ec2.describe_security_groups()["SecurityGroups"] == before
    for name, kind in prepared["available_node_types"].items():
        assert kind["node_config"]["SecurityGroupIds"] == [group], name
        assert subnet not in kind["node_config"]["SubnetIds"], name


def test_nodes_are_closed_and_encrypted(aws: dict[str, Any]) -> None:
    for name, kind in aws["available_node_types"].items():
        node = kind["node_config"]
        assert node["MetadataOptions"]["HttpTokens"] == "required", name
        assert node["MetadataOptions"]["HttpPutResponseHopLimit"] == 1, name
        for disk in node["BlockDeviceMappings"]:
            assert disk["Ebs"]["Encrypted"] is True, name
            assert disk["Ebs"]["DeleteOnTermination"] is True, name
        expected = "brats-ray-head" if name == aws["head_node_type"] else "brats-ray-worker"
        assert node["IamInstanceProfile"] == {"Name": expected}


def test_ray_listens_for_its_dashboard_on_loopback_and_wants_the_token(aws: dict[str, Any]) -> None:
    starts = [text for text in aws["head_start_ray_commands"] if "ray start" in text]
    assert len(starts) == 1
    assert "--dashboard-host=127.0.0.1" in starts[0]
    environment = next(text for text in aws["setup_commands"] if "brats.env" in text)
    assert "RAY_AUTH_MODE=token" in environment
    assert aws["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    for text in strings(aws):
        assert "RAY_AUTH_TOKEN=" not in text  # it would be on a command line, and so in ps


def test_roles_may_do_what_they_must_and_no_more() -> None:
    for file in (CLUSTER / "iam").glob("*.json"):
        for statement in json.loads(file.read_text())["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not any("*" in action for action in actions), f"{file.name}: {statement['Sid']}"
            if file.stem == "trust":
                assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
            elif statement["Resource"] == "*":  # EC2's Describe… actions know no resources
                assert all(action.startswith("ec2:Describe") for action in actions), statement["Sid"]
    storage = json.loads((CLUSTER / "iam" / "storage.json").read_text())
    assert {action.split(":")[0] for part in storage["Statement"] for action in part["Action"]} == {"s3"}
    assert all(part["Resource"].startswith("arn:aws:s3:::BUCKET") for part in storage["Statement"])


@pytest.mark.parametrize("pattern", SECRETS)
@pytest.mark.processes
def test_no_secret_is_in_the_repository(pattern: str) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__):
            found = re.search(pattern, path.read_text(errors="replace"))
            assert found is None, f"{name}: {found and found[0][:12]}…"


def test_the_search_for_secrets_would_find_one() -> None:
    samples = ("AKIA" + "ABCDEFGHIJKLMNOP", "-----BEGIN RSA " + "PRIVATE KEY-----", "a1" * 32)
    samples += ("aws_secret_access_key = " + "a" * 40,)
    for pattern, sample in zip(SECRETS, samples, strict=True):
        assert re.search(pattern, sample)
