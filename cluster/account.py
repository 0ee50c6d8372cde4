"""What cluster/aws.yaml names in an AWS account, made and removed: `python cluster/account.py --help`.

Run again, each command does only what is missing. It uses the credentials that the AWS tools use.
"""

import ipaddress
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from botocore.exceptions import BotoCoreError, ClientError

from aws_account import PROJECT, Account, say, there_already
from bucket import make_bucket, remove_bucket
from budget import make_budget, remove_budget
from doctor import examine
from machine_image import bake_image, baked_images, has_image, look_up_image, remove_image
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from roles import make_roles, remove_roles
from smoke import rent_and_look
from storage import InputError

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Command:
    file: Path = HERE / "aws.yaml"
    """The cluster file, which says region and cluster name."""


@dataclass(frozen=True, kw_only=True)
class Create(Command):
    """Make bucket, roles, key, security group and budget, look the machine image up, and write what the file names."""

    bucket: str
    """For stores and runs; made if it is not there. Names are unique in all of AWS: take one with your own name in it.
    """
    ssh_from: str
    """The addresses that may SSH to the cluster, as 203.0.113.7/32: yours, as the internet sees it."""
    alarm_to: str
    """The e-mail address that AWS writes to when the account costs more than it should."""
    dollars_a_month: float = 100.0
    """What the account may cost: AWS writes at half of it, at all of it, and when it foresees more."""

    def __post_init__(self) -> None:
        if "@" not in self.alarm_to:
            raise InputError(f"--alarm-to wants an e-mail address, got {self.alarm_to!r}")
        if not self.dollars_a_month > 0:
            raise InputError(f"--dollars-a-month must be more than 0, got {self.dollars_a_month:g}")


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Ask whether all is there that a cluster wants, before the first dollar: a line each, with the remedy.

    It ends with 1 where something wants attention. Without --smoke it changes and rents nothing.
    """

    smoke: bool = False
    """Where nothing does, rent one worker for some minutes and a few cents: its driver, the environment, NCCL, training
    steps."""


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
    data: bool = False
    """Also the bucket with your stores and runs, old versions too: nothing brings them back."""


def create(config: Create) -> None:
    """Make everything, in an order in which each step finds what it needs."""
    network = read_network(config.ssh_from)
    account = Account(config.file)
    if strays := sorted(zone for zone in {*account.zones, *account.subnets} if not zone.startswith(account.region)):
        raise InputError(
            f"wanted zones of {account.region} in {config.file}, found {', '.join(strays)}: change those too"
        )
    make_bucket(account, config.bucket)
    make_roles(account, config.bucket)
    make_security_group(account, network)
    write_subnets(account)
    make_key(account)
    # AWS wants this role once in an account before its first spot instance.
    with there_already("InvalidInput", "EntityAlreadyExists"):
        account.iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    make_token()
    account.write(r"(?<=REGION=)[a-z0-9-]+", account.region)
    account.write(r"s3://[^/\s]+", f"s3://{config.bucket}")
    if not has_image(account):  # one that was written here, or baked, stays
        look_up_image(account)
    make_budget(account, config.dollars_a_month, config.alarm_to)  # last: not every user may


def ask_doctor(config: Doctor) -> int:
    """Examine the account, and where that finds nothing and it is wanted, a machine."""
    account = Account(config.file)
    return examine(account) or (rent_and_look(account) if config.smoke else 0)


def read_network(text: str) -> str:
    """Return the network in its usual form. Raises InputError for the whole world and for what is no network."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise InputError(f"--ssh-from wants a network such as 203.0.113.7/32, got {text!r}: {error}") from error
    if network.version != 4 or network.prefixlen < 16:
        raise InputError(f"--ssh-from wants IPv4 and /16 or narrower, got {text}: give your own address with /32")
    return str(network)


def make_security_group(account: Account, network: str) -> None:
    """SSH from `network` and everything between the group's own members; rules that are there already stay."""
    vpc = default_network(account)
    with there_already("InvalidGroup.Duplicate"):
        about = "brats-stream: SSH from one network, everything between the nodes"
        account.ec2.create_security_group(GroupName=PROJECT, Description=about, VpcId=vpc)
    group = security_groups(account)[0]["GroupId"]
    ssh = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": network}]}
    for rule in ({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}, ssh):
        with there_already("InvalidPermission.Duplicate"):
            account.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    say(f"security group {PROJECT}: SSH from {network}, and what its members send each other")
    account.write(r"\bsg-\w+", group)


def default_network(account: Account) -> str:
    """The id of the region's default VPC. Raises InputError where there is none."""
    networks = account.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not networks:
        raise InputError(f"wanted a default VPC in {account.region}, found none: aws ec2 create-default-vpc makes it")
    return str(networks[0]["VpcId"])


def write_subnets(account: Account) -> None:
    """The subnet of each zone that the file names places in: Ray would choose among all zones' by itself."""
    inside = {"Name": "vpc-id", "Values": [default_network(account)]}
    found = account.ec2.describe_subnets(Filters=[inside, {"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    subnets = {item["AvailabilityZone"]: item["SubnetId"] for item in found}
    for zone in sorted(account.subnets):
        if zone not in subnets:
            raise InputError(
                f"wanted a default subnet in {zone}, found them in {', '.join(sorted(subnets))}: "
                f"aws ec2 create-default-subnet --availability-zone {zone}, or take another zone in {account.file}"
            )
        account.write(rf"(?<=AvailabilityZone: {zone}}}, SubnetIds: \[)subnet-\w+", subnets[zone])


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
    if not there and account.key_file.exists():  # that of a cluster in another region
        account.ec2.import_key_pair(KeyName=PROJECT, PublicKeyMaterial=read_public_half(account.key_file))
    elif not there:
        write_secret(account.key_file, account.ec2.create_key_pair(KeyName=PROJECT)["KeyMaterial"])
    say(f"key pair {PROJECT}: {account.key_file}")


def read_public_half(key: Path) -> bytes:
    """Raises InputError for what is no private key, or one with a passphrase."""
    done = subprocess.run(["ssh-keygen", "-y", "-P", "", "-f", key], capture_output=True)
    if done.returncode:
        raise InputError(
            f"wanted a private key without passphrase in {key}, ssh-keygen says: {done.stderr.decode().strip()}; "
            "move the file away, or name another one in the cluster file"
        )
    return done.stdout


def make_token() -> None:
    """The token that aws.yaml gives to every node: a file, whatever else this user's environment says of tokens."""
    token = Path.home() / ".ray" / "auth_token"
    if token.exists():
        token.chmod(0o600)  # one that Ray itself made is open to all to read
    else:
        write_secret(token, secrets.token_hex(32))
    say(f"token: {token}")


def write_secret(file: Path, text: str) -> None:
    """Write a new file that only this user can ever have read."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(text)


def remove(config: Remove) -> None:
    """Undo `create`."""
    account = Account(config.file)
    if account.instances():
        running = ", ".join(item["InstanceId"] for item in account.instances())
        raise InputError(f"cluster {account.cluster} still has instances ({running}): ray down {config.file} first")
    if ending := [item["InstanceId"] for item in account.instances("shutting-down")]:
        say(f"waiting for {', '.join(ending)} to be gone: until then they hold the security group")
        account.ec2.get_waiter("instance_terminated").wait(InstanceIds=ending)
    for image in baked_images(account) if config.images else []:
        remove_image(account, image)
    if config.data:
        remove_bucket(account)
    left = remove_roles(account)
    if not any(name.endswith(f"-{account.region}") for name in left):
        for group in security_groups(account):
            account.ec2.delete_security_group(GroupId=group["GroupId"])
        account.ec2.delete_key_pair(KeyName=PROJECT)
    if not left:
        remove_budget(account)
        account.key_file.unlink(missing_ok=True)
    images = ", ".join(image["ImageId"] for image in baked_images(account))
    baked = f"the baked images {images}" if images else ""
    gone = "security group, key pair, roles, budget"
    if left:
        gone = f"what {account.cluster} alone used. Others use the roles: {', '.join(sorted(left))}"
    bucket = "" if config.data else "the bucket"
    kept = " and ".join(filter(None, (bucket, baked))) or "nothing"
    say(f"removed: {gone}. Still there and paid for: {kept}")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    commands: dict[str, tuple[type[Command], Callable[[Any], int | None]]] = {
        "create": (Create, create),
        "doctor": (Doctor, ask_doctor),
        "image": (Image, lambda config: look_up_image(Account(config.file))),
        "bake": (Bake, lambda config: bake_image(Account(config.file))),
        "remove": (Remove, remove),
    }
    kinds: Any = Union[*(Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in commands.items())]
    config: Any = read_flags(kinds, arguments, description=__doc__)
    try:
        return dict(commands.values())[type(config)](config) or 0
    except (ClientError, BotoCoreError) as error:
        raise InputError(f"AWS: {error}") from error
    except subprocess.CalledProcessError as error:
        raise InputError(f"the head could not be made ready for an image: {' '.join(error.cmd[3:])} failed") from error


if __name__ == "__main__":
    sys.exit(run_command(main))
