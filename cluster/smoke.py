"""One machine of the workers' type, rented for minutes: what only a real one shows. `account.py doctor --smoke`.

It starts as Ray's workers do (type, market, image, role, network), builds the environment, and reports through the
bucket.
"""

import io
import tarfile
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from aws_account import PROJECT, Account, say
from spot_market import zone_prices
from storage import InputError

ROOT = Path(__file__).parents[1]
MINUTES = 25  # after which the machine ends itself, whatever becomes of this command
SECONDS_BETWEEN_LOOKS = 10.0
FOLDER = "smoke"  # in the bucket

# Runs as root when the machine first starts.
BOOT = """#!/bin/bash
shutdown -h +{minutes}
runuser --login ubuntu --command "
    export AWS_DEFAULT_REGION={region}
    mkdir --parents brats-stream
    aws s3 cp --quiet {place}/project.tar.gz - | tar --extract --gzip --directory brats-stream
    bash brats-stream/cluster/node/smoke.sh {place} {store}"
shutdown -h now
"""


def rent_and_look(account: Account) -> int:
    """Rent one, print what it says while it says it, end it; return 1 where something is not as it should be."""
    place = f"s3://{account.bucket}/{FOLDER}"
    for name in ("said", "log", "gpu-check.json"):
        account.s3.delete_object(Bucket=account.bucket, Key=f"{FOLDER}/{name}")
    account.s3.put_object(Bucket=account.bucket, Key=f"{FOLDER}/project.tar.gz", Body=pack_project(account))
    boot = BOOT.format(minutes=MINUTES, region=account.region, place=place, store=store_that_is_there(account))
    kind, zone, node = account.worker_node()
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": f"{PROJECT}-smoke"}]}]
    begun = time.monotonic()
    started = account.ec2.run_instances(**{**node, "UserData": boot, "TagSpecifications": tags}, MinCount=1, MaxCount=1)
    machine = started["Instances"][0]["InstanceId"]
    say(f"{machine}: one {kind} in {zone}, for {MINUTES} minutes at most; it ends itself")
    try:
        troubles = follow(account, begun)
    finally:
        account.ec2.terminate_instances(InstanceIds=[machine])
        hours = (time.monotonic() - begun) / 3600
        price = zone_prices(account.ec2, kind).get(zone)
        say(f"{machine}: ended after {hours * 60:.0f} minutes" + (f", about ${price * hours:.2f}" if price else ""))
    say(f"its log and figures: {place}/log, {place}/gpu-check.json")
    return int(troubles > 0)


def follow(account: Account, begun: float) -> int:
    """Print each line of the machine's report when it is there, until the last; return how many say NO."""
    shown: list[str] = []
    while time.monotonic() - begun < MINUTES * 60:
        lines = read_lines(account)
        for line in lines[len(shown) :]:
            say(line)
        shown = lines
        if shown and shown[-1] == "done":
            return sum(line.startswith("NO") for line in shown)
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise InputError(
        f"the machine said nothing more for {MINUTES} minutes, last: {shown[-1] if shown else 'nothing at all'}; "
        "its console: aws ec2 get-console-output"
    )


def read_lines(account: Account) -> list[str]:
    """What the machine has said so far."""
    try:
        said = account.s3.get_object(Bucket=account.bucket, Key=f"{FOLDER}/said")["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return []
    return str(said.decode()).splitlines()


def store_that_is_there(account: Account) -> str:
    """The store that the file names, where it has been written; without it the machine makes a synthetic one."""
    found: Any = account.s3.list_objects_v2(Bucket=account.bucket, Prefix="brats.zarr/zarr.json", MaxKeys=1)
    return f"s3://{account.bucket}/brats.zarr" if found.get("KeyCount") else ""


def pack_project(account: Account) -> bytes:
    """The files that travel to every node, as the cluster file names them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in account.project_files():
            archive.add(ROOT / name, arcname=name, filter=lambda item: None if "__pycache__" in item.name else item)
    return packed.getvalue()
