"""What cluster/aws.yaml names in an AWS account, made and removed: `python cluster/account.py --help`.

Run again, each command does only what is missing. It uses the credentials that the AWS tools use.
"""

import contextlib
import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import boto3
import tyro
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from ray_jobs.exit_status import run_command
from ray_jobs.ray_start import make_token
from storage import InputError

HERE = Path(__file__).parent
PROJECT = "brats-ray"
POLICIES = {f"{PROJECT}-head": ("storage", "scaling"), f"{PROJECT}-worker": ("storage",)}
IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
NO_IMAGE = "ami-00000000000000000"


@dataclass(frozen=True, kw_only=True)
class Command:
    file: Path = HERE / "aws.yaml"
    """The cluster file, which says region and cluster name."""


@dataclass(frozen=True, kw_only=True)
class Create(Command):
    """Make bucket, roles, key and security group, look the machine image up, and write what the file names."""

    bucket: str
    """For stores and runs; made if it is not there. Names are unique in all of AWS: take one with your own name in it.
    """
    ssh_from: str
    """The addresses that may SSH to the cluster, as 203.0.113.7/32: yours, as the internet sees it."""


@dataclass(frozen=True, kw_only=True)
class Image(Command):
    """Look up today's Deep Learning AMI and write it to the cluster file."""


@dataclass(frozen=True, kw_only=True)
class Bake(Command):
    """Make an image of the running head, which has the environment, and write it to the cluster file.

    This ends Ray on the head and removes its token and key first: the next step is `ray down`.
    """


@dataclass(frozen=True, kw_only=True)
class Remove(Command):
    """Remove all of it again, but for the bucket, which holds your data. Refuses while instances run."""

    images: bool = False
    """Also the baked images and their snapshots."""


class Account:
    """The account as seen from the region of a cluster file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            cluster = yaml.safe_load(file.read_text())
            self.cluster, self.region = cluster["cluster_name"], cluster["provider"]["region"]
            self.key_file = Path(cluster["auth"]["ssh_private_key"]).expanduser()
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise InputError(f"wanted a cluster file such as cluster/aws.yaml, {file}: {error!r}") from error
        session = boto3.session.Session(region_name=self.region)
        self.ec2, self.iam, self.s3 = (session.client(name) for name in ("ec2", "iam", "s3"))
        self.ssm, self.sts = session.client("ssm"), session.client("sts")

    def write(self, pattern: str, value: str) -> None:
        """Put `value` wherever `pattern` matches in the cluster file, which keeps its comments."""
        text, count = re.subn(pattern, value, self.file.read_text())
        if not count:
            raise InputError(f"wanted a place for {value} in {self.file}, found none: write it there yourself")
        self.file.write_text(text)
        say(f"{self.file.name}: {value}")

    def instances(self) -> list[dict[str, Any]]:
        """The cluster's instances that are not ended."""
        states = {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}
        tag = {"Name": "tag:ray-cluster-name", "Values": [self.cluster]}
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=[states, tag])
        return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]

    def images(self) -> list[dict[str, Any]]:
        """The images that were baked of this cluster."""
        tag = {"Name": "tag:brats-ray-cluster", "Values": [self.cluster]}
        return list(self.ec2.describe_images(Owners=["self"], Filters=[tag])["Images"])


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


@contextlib.contextmanager
def there_already(*codes: str) -> Any:
    """What is there already is left as it is."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in codes:
            raise


def create(config: Create) -> None:
    """Make everything, in an order in which each step finds what it needs."""
    network = read_network(config.ssh_from)
    account = Account(config.file)
    make_bucket(account, config.bucket)
    make_roles(account, config.bucket)
    make_security_group(account, network)
    make_key(account)
    # AWS wants this role once in an account before its first spot instance.
    with there_already("InvalidInput", "EntityAlreadyExists"):
        account.iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    make_token()
    (Path.home() / ".ray" / "auth_token").chmod(0o600)  # one that Ray itself made is open to all to read
    account.write(r"s3://[^/\s]+", f"s3://{config.bucket}")
    if NO_IMAGE in config.file.read_text():  # one that was written here, or baked, stays
        look_up_image(account)


def read_network(text: str) -> str:
    """Return the network in its usual form. Raises InputError for the whole world and for what is no network."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InputError(f"--ssh-from wants a network such as 203.0.113.7/32, got {text!r}: {error}") from error
    if network.version != 4 or network.prefixlen < 16:
        raise InputError(f"--ssh-from wants IPv4 and /16 or narrower, got {text}: give your own address with /32")
    return str(network)


def make_bucket(account: Account, bucket: str) -> None:
    """A bucket that nobody outside the account can read, and that forgets uploads which were never finished."""
    place = (
        {} if account.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": account.region}}
    )
    try:
        account.s3.create_bucket(Bucket=bucket, **place)
    except ClientError as error:
        if error.response["Error"]["Code"] == "BucketAlreadyExists":
            raise InputError(f"--bucket {bucket} belongs to somebody else: choose another name") from error
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    account.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=closed)
    tidy = {"ID": "unfinished-uploads", "Status": "Enabled", "Filter": {"Prefix": ""}}
    tidy["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 2}
    account.s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [tidy]})
    say(f"bucket {bucket}: closed to the public")


def make_roles(account: Account, bucket: str) -> None:
    """An instance profile for the head and one for workers, with the policies of cluster/iam."""
    names = {"ACCOUNT": account.sts.get_caller_identity()["Account"], "REGION": account.region}
    names |= {"BUCKET": bucket, "CLUSTER": account.cluster}
    trust = (HERE / "iam" / "trust.json").read_text()
    for role, policies in POLICIES.items():
        with there_already("EntityAlreadyExists"):
            account.iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
        for policy in policies:
            text = (HERE / "iam" / f"{policy}.json").read_text()
            text = re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[0]], text)
            account.iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=text)
        with there_already("EntityAlreadyExists"):
            account.iam.create_instance_profile(InstanceProfileName=role)
        if not account.iam.get_instance_profile(InstanceProfileName=role)["InstanceProfile"]["Roles"]:
            account.iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        account.iam.get_waiter("instance_profile_exists").wait(InstanceProfileName=role)
        say(f"role and instance profile {role}: {' and '.join(policies)}")


def make_security_group(account: Account, network: str) -> None:
    """SSH from `network` and everything between the group's own members; rules that are there already stay."""
    networks = account.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not networks:
        raise InputError(f"wanted a default VPC in {account.region}, found none: aws ec2 create-default-vpc makes it")
    with there_already("InvalidGroup.Duplicate"):
        about = "brats-stream: SSH from one network, everything between the nodes"
        account.ec2.create_security_group(GroupName=PROJECT, Description=about, VpcId=networks[0]["VpcId"])
    group = security_groups(account)[0]["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": network}]}
    for rule in ({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}, ssh):
        with there_already("InvalidPermission.Duplicate"):
            account.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    say(f"security group {PROJECT}: SSH from {network}, and what its members send each other")
    account.write(r"\bsg-\w+", group)


def security_groups(account: Account) -> list[dict[str, Any]]:
    named = {"Name": "group-name", "Values": [PROJECT]}
    return list(account.ec2.describe_security_groups(Filters=[named])["SecurityGroups"])


def make_key(account: Account) -> None:
    """A key pair whose private half only this user can read."""
    there = account.ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [PROJECT]}])["KeyPairs"]
    if there and not account.key_file.exists():
        raise InputError(
            f"key pair {PROJECT} is there but {account.key_file} is not: copy the file here, or delete the pair "
            f"(aws ec2 delete-key-pair --region {account.region} --key-name {PROJECT}) and run this again"
        )
    if not there:
        account.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        account.key_file.unlink(missing_ok=True)
        material = account.ec2.create_key_pair(KeyName=PROJECT)["KeyMaterial"]
        with os.fdopen(os.open(account.key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(material)
    say(f"key pair {PROJECT}: {account.key_file}")


def look_up_image(account: Account) -> None:
    """Write today's AMI, by its id: a name would change under a running cluster."""
    account.write(r"\bami-\w+", account.ssm.get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"])


def bake(config: Bake) -> None:
    """Clean the head, make an image of it, wait for it."""
    account = Account(config.file)
    heads = [item for item in account.instances() if {"Key": "ray-node-type", "Value": "head"} in item["Tags"]]
    if len(heads) != 1 or heads[0]["State"]["Name"] != "running":
        raise InputError(f"wanted a running head of {account.cluster}, found {len(heads)}: ray up {config.file}")
    forget = [sys.executable, "-m", "ray.scripts.scripts", "exec", str(config.file)]
    subprocess.run([*forget, "bash ~/brats-stream/cluster/node/forget.sh"], check=True)
    head = heads[0]["InstanceId"]
    tags = [{"ResourceType": "image", "Tags": [{"Key": "brats-ray-cluster", "Value": account.cluster}]}]
    image = account.ec2.create_image(InstanceId=head, Name=f"{PROJECT}-{head}", TagSpecifications=tags)["ImageId"]
    say(f"image {image}: waiting for it, some minutes")
    account.ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 15, "MaxAttempts": 120})
    account.write(r"\bami-\w+", image)
    say(f"next: ray down {config.file}; clusters start from this image from now on")


def remove(config: Remove) -> None:
    """Undo `create`."""
    account = Account(config.file)
    if account.instances():
        running = ", ".join(item["InstanceId"] for item in account.instances())
        raise InputError(f"cluster {account.cluster} still has instances ({running}): ray down {config.file} first")
    for image in account.images() if config.images else []:
        account.ec2.deregister_image(ImageId=image["ImageId"])
        for disk in image["BlockDeviceMappings"]:
            if "SnapshotId" in disk.get("Ebs", {}):
                account.ec2.delete_snapshot(SnapshotId=disk["Ebs"]["SnapshotId"])
        say(f"image {image['ImageId']}: removed with its snapshots")
    for group in security_groups(account):
        account.ec2.delete_security_group(GroupId=group["GroupId"])
    account.ec2.delete_key_pair(KeyName=PROJECT)
    account.key_file.unlink(missing_ok=True)
    for role, policies in POLICIES.items():
        profile, named = {"InstanceProfileName": role}, {"RoleName": role}
        steps = [(account.iam.remove_role_from_instance_profile, profile | named)]
        steps += [(account.iam.delete_instance_profile, profile)]
        steps += [(account.iam.delete_role_policy, named | {"PolicyName": policy}) for policy in policies]
        for step, what in (*steps, (account.iam.delete_role, named)):
            with there_already("NoSuchEntity"):  # or rather gone already
                step(**what)
    images = ", ".join(image["ImageId"] for image in account.images())
    baked = f" and the baked images {images}" if images else ""
    say(f"removed: security group, key pair, roles. Still there and paid for: the bucket{baked}")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    commands: dict[str, tuple[type[Command], Callable[[Any], None]]] = {
        "create": (Create, create),
        "image": (Image, lambda config: look_up_image(Account(config.file))),
        "bake": (Bake, bake),
        "remove": (Remove, remove),
    }
    kinds: Any = Union[*(Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in commands.items())]
    config: Any = tyro.cli(kinds, args=list(arguments), description=__doc__)
    try:
        dict(commands.values())[type(config)](config)
    except (ClientError, BotoCoreError) as error:
        raise InputError(f"AWS: {error}") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"the head could not be made ready for an image: {' '.join(error.cmd[3:])} failed") from error
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
