"""Is the account ready for a cluster file? What `account.py doctor` asks before the first dollar, a line each.

It changes nothing. The user needs to read: EC2, IAM, S3, Service Quotas (AWS's ReadOnlyAccess has all of it).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from aws_account import Account, say
from iam_simulation import ask_roles
from machine_image import has_image
from spot_market import ask_prices, ask_regions

CREATE = "python cluster/account.py create makes it"
SPOT_QUOTA, ON_DEMAND_QUOTA = "L-3819A6DF", "L-DB2E81BA"  # All G and VT Spot Instance Requests; On-Demand G and VT
FIRST_YEAR = "2026"  # of Deep Learning images whose driver is 580 or newer


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found, and what to do where it will not do."""

    found: str
    remedy: str = ""


def examine(account: Account) -> int:
    """Ask everything; return 1 where something will not do or could not be asked."""
    troubles = 0
    for name, check in CHECKS.items():
        try:
            answer = check(account)
            mark = "NO" if answer.remedy else "ok"
        except (ClientError, BotoCoreError) as error:
            answer = Answer(found=f"could not be asked: {error}", remedy=ASKING.get(name, "the user may not read it"))
            mark = "NO" if name == "credentials" else "??"
        troubles += mark != "ok"
        say(f"{mark}  {name}: {answer.found}" + (f"; {answer.remedy}" if answer.remedy else ""))
        if mark == "NO" and name == "credentials":
            return 1  # all else would say the same
    say(f"{troubles} of {len(CHECKS)} want attention" if troubles else "ready: ray up " + str(account.file))
    return int(troubles > 0)


ASKING = {"credentials": "aws configure, or AWS_PROFILE"}


def ask_credentials(account: Account) -> Answer:
    """Whose account it is."""
    who = account.sts.get_caller_identity()
    return Answer(found=f"{who['Arn']} of account {who['Account']}, region {account.region}")


def ask_quotas(account: Account) -> Answer:
    """Whether the quotas, in vCPUs, hold the workers that the file allows where they are tried first."""
    workers = account.workers()
    found = account.ec2.describe_instance_types(InstanceTypes=sorted(workers.types))["InstanceTypes"]
    sizes = {item["InstanceType"]: item["VCpuInfo"]["DefaultVCpus"] for item in found}
    wanted = {kind: sizes[kind] * count for kind, count in workers.types.items()}
    quotas = account.client("service-quotas")
    spot, on_demand = (
        quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        for code in (SPOT_QUOTA, ON_DEMAND_QUOTA)
    )
    each = ", ".join(f"{count} of {kind}" for kind, count in wanted.items())
    text = f"{spot:g} vCPUs of G instances as spot, {on_demand:g} on demand; {workers.count} workers want {each}"
    code, has = (SPOT_QUOTA, spot) if workers.spot else (ON_DEMAND_QUOTA, on_demand)
    first = wanted[workers.places[0][1]]
    if has >= first:
        return Answer(found=text)
    command = f"aws service-quotas request-service-quota-increase --region {account.region} --service-code ec2"
    return Answer(found=text, remedy=f"{command} --quota-code {code} --desired-value {first} (granting takes a day)")


def ask_network(account: Account) -> Answer:
    """Whether the default VPC has a subnet with public addresses in each of the file's zones."""
    networks = account.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not networks:
        return Answer(found="no default VPC", remedy=f"aws ec2 create-default-vpc --region {account.region}")
    inside = {"Name": "vpc-id", "Values": [networks[0]["VpcId"]]}
    subnets = account.ec2.describe_subnets(Filters=[inside])["Subnets"]
    open_zones = {item["AvailabilityZone"] for item in subnets if item["MapPublicIpOnLaunch"]}
    missing = [zone for zone in account.zones if zone not in open_zones]
    unknown = sorted(set(account.subnets.values()) - {item["SubnetId"] for item in subnets})
    text = f"{networks[0]['VpcId']} with subnets in {', '.join(sorted(open_zones)) or 'no zone'}"
    if unknown and not missing:
        return Answer(found=f"{text}; none is {', '.join(unknown)} of {account.file}", remedy=CREATE)
    return Answer(
        found=text,
        remedy=f"aws ec2 create-default-subnet --availability-zone {missing[0]}" if missing else "",
    )


def ask_zones(account: Account) -> Answer:
    """Whether the zones offer the types that the file tries in them."""
    workers = account.workers()
    types = sorted({*workers.types, account.head_type})
    offered = account.ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": types}]
    )
    there = {(offer["Location"], offer["InstanceType"]) for page in offered for offer in page["InstanceTypeOfferings"]}
    tried = (*workers.places, (account.zones[0], account.head_type))
    missing = [f"{zone} has no {kind}" for zone, kind in tried if (zone, kind) not in there]
    zones = sorted({zone for zone, _ in there})
    everywhere = [zone for zone in zones if all((zone, kind) in there for kind in types)]
    if missing:
        fits = f"in {account.file} take {', '.join(everywhere) or 'another region'}, or max_workers 0 for that place"
        return Answer(found=", ".join(missing), remedy=fits)
    places = ", ".join(f"{kind} in {zone}" for zone, kind in workers.places)
    return Answer(found=f"tried in turn: {places}; all types are in {', '.join(everywhere)}")


def ask_image(account: Account) -> Answer:
    """Whether the file's image is there, and new enough for its driver."""
    if not has_image(account):
        return Answer(found=f"none of {account.file} is in {account.region}", remedy=CREATE)
    image = account.ec2.describe_images(ImageIds=[account.image], IncludeDeprecated=True)["Images"][0]
    name, date = image.get("Name", "without a name"), image.get("CreationDate", "")[:10]
    baked = any(tag["Key"] == "brats-ray-cluster" for tag in image.get("Tags", []))
    text = f"{account.image} of {date}, {name}"
    if baked:
        return Answer(found=f"{text}: baked of a head, its driver looked at on each node")
    if "nvidia driver" not in name.lower() or date < FIRST_YEAR:
        return Answer(
            found=f"{text}: wanted a Deep Learning image with driver 580 or newer, as those of {FIRST_YEAR} have",
            remedy="python cluster/account.py image looks today's up",
        )
    return Answer(found=f"{text}: driver 580 or newer, looked at again on each node")


def ask_bucket(account: Account) -> Answer:
    """Whether the bucket is there and in the cluster's region."""
    if account.bucket == "BUCKET":
        return Answer(found=f"none is named in {account.file}", remedy=CREATE)
    try:
        place = account.s3.get_bucket_location(Bucket=account.bucket)["LocationConstraint"] or "us-east-1"
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
        return Answer(found=f"{account.bucket} is not there", remedy=CREATE)
    if place != account.region:
        return Answer(
            found=f"{account.bucket} is in {place}, the cluster in {account.region}: each GB read costs $0.02",
            remedy=f"set region and zones in {account.file} to {place}, or take a bucket in {account.region}",
        )
    return Answer(found=f"{account.bucket} in {place}")


def ask_permissions(account: Account) -> Answer:
    """Whether AWS itself says that head and workers may do what they do."""
    missing, refused = ask_roles(account)
    if missing:
        return Answer(found=f"no {' and no '.join(missing)}", remedy=CREATE)
    if refused:
        return Answer(
            found=f"refused: {', '.join(refused)}", remedy="python cluster/account.py create mends the policies"
        )
    return Answer(found="head and workers may do what they do, by IAM's own simulation")


CHECKS: dict[str, Callable[[Any], Answer]] = {
    "credentials": ask_credentials,
    "quota": ask_quotas,
    "network": ask_network,
    "zones": ask_zones,
    "image": ask_image,
    "roles": ask_permissions,
    "bucket": ask_bucket,
    "price": lambda account: Answer(found=ask_prices(account)),
    "region": lambda account: Answer(found=ask_regions(account)),
}
