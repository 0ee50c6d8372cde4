"""account.py against moto: what it makes, that it makes it once, what it refuses, and that all of it goes again."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
import pytest
import yaml
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ssm.models import Parameter, ssm_backends

from storage import InputError

CLUSTER = Path(__file__).parents[2] / "cluster"
REGION = "us-west-2"
IMAGE = "ami-0123456789abcdef0"
Account = Callable[..., int]
CREATE = ("create", "--bucket", "somebodys-brats", "--ssh-from", "203.0.113.7/32")


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """account.py, which is a script beside the packages."""
    spec = importlib.util.spec_from_file_location("cluster_account", CLUSTER / "account.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["cluster_account"] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return Path(shutil.copy(CLUSTER / "aws.yaml", tmp_path))


@pytest.fixture
def account(amazon: None, module: ModuleType, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Account:
    """Run `python cluster/account.py …` on a copy of aws.yaml, in an account where AWS publishes its image."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    name = module.IMAGE_PARAMETER
    parameter = Parameter(
        account_id=DEFAULT_ACCOUNT_ID, name=name, value=IMAGE, parameter_type="String", description="",
        allowed_pattern=None, keyid=None, last_modified_date=time.time(), version=1, data_type="text",
    )  # fmt: skip
    ssm_backends[DEFAULT_ACCOUNT_ID][REGION]._parameters[name].append(parameter)  # moto lets nobody write below /aws

    def run(*arguments: str) -> int:
        status: int = module.main([*arguments, "--file", str(file)])
        return status

    return run


def mode(path: Path) -> str:
    return oct(path.stat().st_mode)[-3:]


def groups() -> list[dict[str, Any]]:
    ec2 = boto3.client("ec2", region_name=REGION)
    return list(
        ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["brats-ray"]}])["SecurityGroups"]
    )


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
    assert mode(tmp_path / ".ssh" / "brats-ray.pem") == "600"
    assert mode(tmp_path / ".ray" / "auth_token") == "600"
    profiles = boto3.client("iam").list_instance_profiles()["InstanceProfiles"]
    named = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in after["available_node_types"].values()}
    assert {profile["InstanceProfileName"] for profile in profiles} == named
    assert all(len(profile["Roles"]) == 1 for profile in profiles)


def test_policies_are_of_this_account_and_bucket(account: Account) -> None:
    account(*CREATE)
    iam = boto3.client("iam")
    assert iam.list_role_policies(RoleName="brats-ray-worker")["PolicyNames"] == ["storage"]
    assert sorted(iam.list_role_policies(RoleName="brats-ray-head")["PolicyNames"]) == ["scaling", "storage"]
    for role, name in (("brats-ray-head", "scaling"), ("brats-ray-worker", "storage")):
        text = json.dumps(iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"])
        assert not {"BUCKET", "ACCOUNT", "REGION", "CLUSTER"} & set(text.replace("/", " ").replace(":", " ").split())
        assert (DEFAULT_ACCOUNT_ID if name == "scaling" else "arn:aws:s3:::somebodys-brats/*") in text


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
        account("create", "--bucket", "somebodys-brats", "--ssh-from", network)
    assert groups() == []


def start_head(file: Path) -> str:
    node = yaml.safe_load(file.read_text())["available_node_types"]["head"]["node_config"]
    tags = [{"Key": "ray-cluster-name", "Value": "brats"}, {"Key": "ray-node-type", "Value": "head"}]
    started = boto3.client("ec2", region_name=REGION).run_instances(
        MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}], **node
    )
    name: str = started["Instances"][0]["InstanceId"]
    return name


def test_bake_makes_an_image_of_the_cleaned_head_the_default(
    account: Account, module: ModuleType, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(*CREATE)
    ran: list[Sequence[str]] = []
    plain = subprocess.run

    def run(command: Sequence[str], **rest: Any) -> Any:
        if "exec" in command:
            ran.append(command)
            return subprocess.CompletedProcess(command, 0)
        return plain(command, **rest)

    monkeypatch.setattr(module.subprocess, "run", run)
    with pytest.raises(InputError, match="ray up"):
        account("bake")
    head = start_head(file)
    assert account("bake") == 0
    (command,) = ran
    assert command[-1] == "bash ~/brats-stream/cluster/node/forget.sh"
    ec2 = boto3.client("ec2", region_name=REGION)
    (image,) = ec2.describe_images(Owners=["self"])["Images"]
    for kind in yaml.safe_load(file.read_text())["available_node_types"].values():
        assert kind["node_config"]["ImageId"] == image["ImageId"]
    account(*CREATE)  # which keeps it
    assert image["ImageId"] in file.read_text()
    with pytest.raises(InputError, match=head):
        account("remove")
    ec2.terminate_instances(InstanceIds=[head])
    assert account("remove", "--images") == 0
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    assert account("image") == 0
    assert IMAGE in file.read_text()


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
