"""account.py against moto: what it makes, that it makes it once, what it refuses, and that all of it goes again."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
import yaml
from botocore.client import BaseClient
from moto.core import DEFAULT_ACCOUNT_ID

from storage import InputError
from tests.cluster.conftest import ALARM, CLUSTER, CREATE, IMAGE, REGION, publish_image

Account = Callable[..., int]
SCALING = "scaling-brats-us-west-2"


def mode(path: Path) -> str:
    return oct(path.stat().st_mode)[-3:]


def groups() -> list[dict[str, Any]]:
    ec2 = boto3.client("ec2", region_name=REGION)
    return list(
        ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["brats-ray"]}])["SecurityGroups"]
    )


def policies(role: str) -> list[str]:
    return sorted(boto3.client("iam").list_role_policies(RoleName=role)["PolicyNames"])


def test_create_makes_what_the_file_names(account: Account, file: Path, tmp_path: Path) -> None:
    before = yaml.safe_load(file.read_text())
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)  # as Ray leaves it
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    assert account(*CREATE) == 0
    after = yaml.safe_load(file.read_text())
    for kind in after["available_node_types"].values():
        assert kind["node_config"]["ImageId"] == IMAGE
    assert "s3://somebodys-brats/brats.zarr" in after["setup_commands"][0]
    assert "s3://somebodys-brats/runs" in after["setup_commands"][0]
    assert after.keys() == before.keys()
    assert file.read_text().count("#") == (CLUSTER / "aws.yaml").read_text().count("#")  # the comments are still there
    assert file.read_text().count("/latest/ami-id") == 1
    (group,) = groups()
    for kind in after["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] == [group["GroupId"]]
    opened = [(rule.get("FromPort"), [part["CidrIp"] for part in rule["IpRanges"]]) for rule in group["IpPermissions"]]
    assert sorted(place for _, ranges in opened for place in ranges) == ["203.0.113.7/32"]
    assert (22, ["203.0.113.7/32"]) in opened
    keys = boto3.client("ec2", region_name=REGION).describe_key_pairs()["KeyPairs"]
    assert {kind["node_config"]["KeyName"] for kind in after["available_node_types"].values()} == {
        key["KeyName"] for key in keys
    }
    check_that_places_have_the_subnets_of_their_zones(file, REGION)
    assert mode(tmp_path / ".ssh" / "brats-ray.pem") == "600"
    assert mode(tmp_path / ".ray" / "auth_token") == "600"
    profiles = boto3.client("iam").list_instance_profiles()["InstanceProfiles"]
    named = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in after["available_node_types"].values()}
    assert {profile["InstanceProfileName"] for profile in profiles} == named
    assert all(len(profile["Roles"]) == 1 for profile in profiles)


def test_policies_are_of_this_account_and_bucket(account: Account) -> None:
    account(*CREATE)
    iam = boto3.client("iam")
    assert policies("brats-ray-worker") == ["storage-brats-us-west-2"]
    assert policies("brats-ray-head") == ["scaling-brats-us-west-2", "storage-brats-us-west-2"]
    for role, name in (("brats-ray-head", SCALING), ("brats-ray-worker", "storage-brats-us-west-2")):
        text = json.dumps(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        assert not {"BUCKET", "ACCOUNT", "REGION", "CLUSTER"} & set(text.replace("/", " ").replace(":", " ").split())
        assert (DEFAULT_ACCOUNT_ID if name == SCALING else "arn:aws:s3:::somebodys-brats/*") in text


def test_the_bucket_is_closed(account: Account) -> None:
    account(*CREATE)
    found = boto3.client("s3", region_name=REGION).get_public_access_block(Bucket="somebodys-brats")
    assert all(found["PublicAccessBlockConfiguration"].values())


def test_twice_is_once(account: Account, file: Path, tmp_path: Path) -> None:
    account(*CREATE)
    text, key = file.read_text(), (tmp_path / ".ssh" / "brats-ray.pem").read_text()
    assert account(*CREATE) == 0
    assert file.read_text() == text
    assert (tmp_path / ".ssh" / "brats-ray.pem").read_text() == key
    (group,) = groups()
    assert len(group["IpPermissions"]) == 2


def test_a_key_that_is_lost_is_said(account: Account, tmp_path: Path) -> None:
    account(*CREATE)
    (tmp_path / ".ssh" / "brats-ray.pem").unlink()
    with pytest.raises(InputError, match="delete-key-pair"):
        account(*CREATE)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "10.0.0.0/8", "::/0", "somewhere", "203.0.113.7/24"])
def test_it_opens_nothing_wide(account: Account, network: str) -> None:
    with pytest.raises(InputError, match="--ssh-from"):
        account("create", "--bucket", "somebodys-brats", "--ssh-from", network, *ALARM)
    assert groups() == []


def start_head(file: Path) -> str:
    node = yaml.safe_load(file.read_text())["available_node_types"]["head"]["node_config"]
    tags = [{"Key": "ray-cluster-name", "Value": "brats"}, {"Key": "ray-node-type", "Value": "head"}]
    started = boto3.client("ec2", region_name=REGION).run_instances(
        MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}], **node
    )
    name: str = started["Instances"][0]["InstanceId"]
    return name


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What `ray exec` was asked to do on the head, which is not there."""
    commands: list[Sequence[str]] = []
    plain = subprocess.run

    def run(command: Sequence[str], **rest: Any) -> Any:
        if "exec" in command:
            commands.append(command)
            return subprocess.CompletedProcess(command, 0)
        return plain(command, **rest)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def image_of(file: Path) -> str:
    kinds = yaml.safe_load(file.read_text())["available_node_types"].values()
    (image,) = {kind["node_config"]["ImageId"] for kind in kinds}
    return str(image)


def own_images() -> list[dict[str, Any]]:
    return list(boto3.client("ec2", region_name=REGION).describe_images(Owners=["self"])["Images"])


@pytest.mark.slow
def test_bake_makes_an_image_of_the_cleaned_head_the_default(
    account: Account, file: Path, ran: list[Sequence[str]]
) -> None:
    account(*CREATE)
    with pytest.raises(InputError, match="ray up"):
        account("bake")
    head = start_head(file)
    assert account("bake") == 0
    (command,) = ran
    assert command[-1] == "bash ~/brats-stream/cluster/node/forget.sh"
    (image,) = own_images()
    assert image_of(file) == image["ImageId"]
    assert file.read_text().count("/latest/ami-id") == 1
    account(*CREATE)  # which keeps it
    assert image_of(file) == image["ImageId"]
    with pytest.raises(InputError, match=head):
        account("remove")
    boto3.client("ec2", region_name=REGION).terminate_instances(InstanceIds=[head])
    assert account("remove", "--images") == 0
    assert own_images() == []
    assert image_of(file) == "ami-00000000000000000"
    account(*CREATE)
    assert image_of(file) == IMAGE


def test_bake_again_takes_the_image_that_is_there(
    account: Account, module: ModuleType, file: Path, ran: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a wait that was cut off; with other pins a head gives another image."""
    account(*CREATE)
    start_head(file)
    account("bake")
    account("image")
    assert account("bake") == 0
    (image,) = own_images()
    assert image_of(file) == image["ImageId"]
    assert len(ran) == 1
    monkeypatch.setattr(importlib.import_module("machine_image"), "digest_of_pins", lambda: "0" * 8)
    assert account("bake") == 0
    assert len(own_images()) == 2
    assert image_of(file) != image["ImageId"]


def check_that_places_have_the_subnets_of_their_zones(file: Path, region: str) -> None:
    subnets = boto3.client("ec2", region_name=region).describe_subnets()["Subnets"]
    there = {item["AvailabilityZone"]: item["SubnetId"] for item in subnets}
    cluster = yaml.safe_load(file.read_text())
    places = [kind["node_config"] for name, kind in cluster["available_node_types"].items() if name != "head"]
    assert len({place["Placement"]["AvailabilityZone"] for place in places}) == 3
    for place in places:
        assert place["SubnetIds"] == [there[place["Placement"]["AvailabilityZone"]]]


@pytest.mark.processes
def test_an_image_of_another_region_is_looked_up_anew(account: Account, file: Path) -> None:
    account(*CREATE)
    text = file.read_text().replace("region: us-west-2", "region: eu-west-1")
    file.write_text(text)
    with pytest.raises(InputError, match=r"wanted zones of eu-west-1 .* found us-west-2a"):
        account(*CREATE)
    file.write_text(re.sub(r"us-west-2([abc])", r"eu-west-1\1", text))
    publish_image("eu-west-1", "ami-0fedcba9876543210")
    key = Path.home() / ".ssh" / "brats-ray.pem"
    before = key.read_text()
    assert account(*CREATE) == 0
    command = yaml.safe_load(file.read_text())["setup_commands"][0]
    assert "AWS_REGION=eu-west-1 AWS_DEFAULT_REGION=eu-west-1" in command
    assert image_of(file) == "ami-0fedcba9876543210"
    check_that_places_have_the_subnets_of_their_zones(file, "eu-west-1")
    assert key.read_text() == before  # the first region's cluster still opens with it
    (pair,) = boto3.client("ec2", region_name="eu-west-1").describe_key_pairs()["KeyPairs"]
    assert pair["KeyName"] == "brats-ray"
    assert policies("brats-ray-head")[:2] == ["scaling-brats-eu-west-1", SCALING]


@pytest.mark.processes
def test_a_key_file_that_is_no_key_is_said(account: Account, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "brats-ray.pem").write_text("something else")
    with pytest.raises(InputError, match="wanted a private key without passphrase"):
        account(*CREATE)
    assert (tmp_path / ".ssh" / "brats-ray.pem").read_text() == "something else"


@pytest.mark.slow
def test_two_clusters_of_one_account_leave_each_other_alone(account: Account, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text().replace("cluster_name: brats\n", "cluster_name: second\n"))
    account(*CREATE)
    account("create", "--bucket", "another-bucket", "--ssh-from", "203.0.113.7/32", *ALARM, of=other)
    iam = boto3.client("iam")
    for name in ("brats", "second"):
        document = iam.get_role_policy(RoleName="brats-ray-head", PolicyName=f"scaling-{name}-us-west-2")
        assert f'"aws:ResourceTag/ray-cluster-name": "{name}"' in json.dumps(document["PolicyDocument"])
    assert account("remove", of=other) == 0
    assert policies("brats-ray-head") == [SCALING, "storage-brats-us-west-2"]
    assert len(iam.list_instance_profiles()["InstanceProfiles"]) == 2
    assert len(groups()) == 1
    assert (tmp_path / ".ssh" / "brats-ray.pem").exists()
    assert account("remove") == 0
    assert iam.list_instance_profiles()["InstanceProfiles"] == []
    assert groups() == []
    assert not (tmp_path / ".ssh" / "brats-ray.pem").exists()


def test_the_token_is_written_whatever_the_environment_says(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aws.yaml carries the file to every node."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert account(*CREATE) == 0
    token = tmp_path / ".ray" / "auth_token"
    assert mode(token) == "600"
    assert len(token.read_text()) == 64


def test_remove_waits_for_machines_that_are_going(
    account: Account, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As right after `ray down`: until they are gone they hold the security group."""
    account(*CREATE)
    head = start_head(file)
    boto3.client("ec2", region_name=REGION).terminate_instances(InstanceIds=[head])
    asked: list[Any] = []
    ask_moto = BaseClient._make_api_call

    def ask(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        answer = ask_moto(client, operation, parameters)
        if operation == "DescribeInstances":
            asked.append(parameters)
            if "shutting-down" in str(parameters):  # which moto never is
                return ask_moto(client, operation, {"InstanceIds": [head]})
        elif operation == "DeleteSecurityGroup":
            asked.append(operation)
        return answer

    monkeypatch.setattr(BaseClient, "_make_api_call", ask)
    assert account("remove") == 0
    assert asked[-2:] == [{"InstanceIds": [head]}, "DeleteSecurityGroup"]


def test_what_is_deleted_in_the_bucket_can_be_had_back_for_a_while(account: Account) -> None:
    account(*CREATE)
    s3 = boto3.client("s3", region_name=REGION)
    assert s3.get_bucket_versioning(Bucket="somebodys-brats")["Status"] == "Enabled"
    rules = s3.get_bucket_lifecycle_configuration(Bucket="somebodys-brats")["Rules"]
    kept = {rule["Filter"]["Prefix"]: rule["NoncurrentVersionExpiration"]["NoncurrentDays"] for rule in rules[1:]}
    assert kept == {"": 14, "runs/": 1}
    text = (CLUSTER / "iam" / "storage.json").read_text()
    assert "s3:DeleteObject" in text
    assert "DeleteObjectVersion" not in text  # so that no node can make it final


def test_data_goes_only_when_it_is_said(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account(*CREATE)
    s3 = boto3.client("s3", region_name=REGION)
    for _ in range(2):
        s3.put_object(Bucket="somebodys-brats", Key="runs/first/config.json", Body=b"{}")
    s3.delete_object(Bucket="somebodys-brats", Key="runs/first/config.json")
    assert account("remove", "--data") == 0
    assert "Still there and paid for: nothing" in capsys.readouterr().out
    assert s3.list_buckets()["Buckets"] == []
    assert account("remove", "--data") == 0


def test_remove_leaves_the_bucket_alone(account: Account, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    account(*CREATE)
    assert account("remove") == 0
    assert "the bucket" in capsys.readouterr().out
    assert groups() == []
    iam = boto3.client("iam")
    assert iam.list_instance_profiles()["InstanceProfiles"] == []
    assert not [role for role in iam.list_roles()["Roles"] if role["RoleName"].startswith("brats-ray")]
    assert boto3.client("ec2", region_name=REGION).describe_key_pairs()["KeyPairs"] == []
    assert not (tmp_path / ".ssh" / "brats-ray.pem").exists()
    assert [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]] == ["somebodys-brats"]
    assert account("remove") == 0


@pytest.mark.processes
def test_a_file_that_is_no_cluster_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("a: 1\n")
    done = subprocess.run(
        [sys.executable, CLUSTER / "account.py", "image", "--file", tmp_path / "other.yaml"],
        capture_output=True,
        text=True,
        env=os.environ | {"AWS_EC2_METADATA_DISABLED": "true"},
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "wanted a cluster file" in done.stderr
