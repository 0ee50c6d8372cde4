"""The machine image of the cluster file: AWS's own, or one that is baked of the head."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from aws_account import PROJECT, Account, say
from storage import InputError

ROOT = Path(__file__).parents[1]
IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
NO_IMAGE = "ami-00000000000000000"
ANY_IMAGE = r"\bami-[0-9a-f]{8,}\b"  # and not the `ami-id` of the parameter


def has_image(account: Account) -> bool:
    """Whether the cluster file names an image that is there: in this region, and not removed."""
    named = {"Name": "image-id", "Values": sorted(set(re.findall(ANY_IMAGE, account.file.read_text())))}
    return bool(account.ec2.describe_images(Filters=[named], IncludeDeprecated=True)["Images"])


def look_up_image(account: Account) -> None:
    """Write today's AMI, by its id: a name would change under a running cluster."""
    account.write(ANY_IMAGE, account.ssm.get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"])


def bake_image(account: Account) -> None:
    """Clean the head, make an image of it, wait for it. One that an earlier call began is waited for."""
    heads = [item for item in account.instances() if {"Key": "ray-node-type", "Value": "head"} in item["Tags"]]
    if len(heads) != 1 or heads[0]["State"]["Name"] != "running":
        raise InputError(f"wanted a running head of {account.cluster}, found {len(heads)}: ray up {account.file}")
    head = heads[0]["InstanceId"]
    name = f"{PROJECT}-{head}-{digest_of_pins()}"
    begun = [image for image in baked_images(account) if image["Name"] == name]
    if begun and begun[0]["State"] not in ("pending", "available"):  # AWS gave up on it, and it still has the name
        remove_image(account, begun.pop())
    if begun:
        image = begun[0]["ImageId"]
    else:
        forget = [sys.executable, "-m", "ray.scripts.scripts", "exec", str(account.file)]
        subprocess.run([*forget, "bash ~/brats-stream/cluster/node/forget.sh"], check=True)
        tags = [{"ResourceType": "image", "Tags": [{"Key": "brats-ray-cluster", "Value": account.cluster}]}]
        image = account.ec2.create_image(InstanceId=head, Name=name, TagSpecifications=tags)["ImageId"]
    say(f"image {image}: waiting for it, some minutes")
    account.ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig={"Delay": 15, "MaxAttempts": 120})
    account.write(ANY_IMAGE, image)
    say(f"next: ray down {account.file}; clusters start from this image from now on")


def digest_of_pins() -> str:
    """What the environment is built from, as in cluster/node/setup.sh: with other pins a head gives another image."""
    pins = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    return hashlib.sha256(pins).hexdigest()[:8]


def baked_images(account: Account) -> list[dict[str, Any]]:
    """The images that were baked of this cluster."""
    tag = {"Name": "tag:brats-ray-cluster", "Values": [account.cluster]}
    return list(account.ec2.describe_images(Owners=["self"], Filters=[tag])["Images"])


def remove_image(account: Account, image: dict[str, Any]) -> None:
    """Remove a baked image and its snapshots, also from the cluster file: `create` looks another up."""
    account.ec2.deregister_image(ImageId=image["ImageId"])
    for disk in image["BlockDeviceMappings"]:
        if "SnapshotId" in disk.get("Ebs", {}):
            account.ec2.delete_snapshot(SnapshotId=disk["Ebs"]["SnapshotId"])
    say(f"image {image['ImageId']}: removed with its snapshots")
    if image["ImageId"] in account.file.read_text():
        account.write(re.escape(image["ImageId"]), NO_IMAGE)
