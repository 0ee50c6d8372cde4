"""The AWS account as seen from the region of a cluster file, which is also written here."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import ClientError

from storage import InputError

PROJECT = "brats-ray"


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The worker machines that a cluster file allows at once."""

    types: Mapping[str, int]
    """How many of each instance type."""
    places: tuple[tuple[str, str], ...]
    """Each zone and instance type, in the order in which they are tried."""
    count: int
    """In all."""
    spot: bool
    """Whether they are, where they are tried first."""


class Account:
    """What a cluster file says, clients for its region, and what is there of its cluster."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            cluster = yaml.safe_load(file.read_text())
            self.cluster, self.region = cluster["cluster_name"], cluster["provider"]["region"]
            self.zones = [zone.strip() for zone in cluster["provider"]["availability_zone"].split(",")]
            self.head_type, self.image = (
                cluster["available_node_types"][cluster["head_node_type"]]["node_config"][name]
                for name in ("InstanceType", "ImageId")
            )
            self.subnets = {
                kind["node_config"]["Placement"]["AvailabilityZone"]: kind["node_config"]["SubnetIds"][0]
                for name, kind in cluster["available_node_types"].items()
                if name != cluster["head_node_type"]
            }
            self.bucket = re.findall(r"s3://([^/\s]+)", " ".join(cluster["setup_commands"]))[0]
            self._cluster = cluster
            self.key_file = Path(cluster["auth"]["ssh_private_key"]).expanduser()
        except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(f"wanted a cluster file such as cluster/aws.yaml, {file}: {error!r}") from error
        self._session = boto3.session.Session(region_name=self.region)
        self.ec2, self.iam, self.s3 = (self.client(name) for name in ("ec2", "iam", "s3"))
        self.ssm, self.sts, self.budgets = (self.client(name) for name in ("ssm", "sts", "budgets"))

    def client(self, service: str, region: str | None = None) -> Any:
        """A client of the service in the file's region, or in another."""
        return self._session.client(service, region_name=region or self.region)

    def workers(self) -> Workers:
        """The workers that the file allows. Raises InputError where it allows none."""
        kinds = self._cluster["available_node_types"]
        allowed = {name: kind for name, kind in kinds.items() if name != self._cluster["head_node_type"]}
        most = self._cluster["max_workers"]
        counts = {name: min(kind["max_workers"], most) for name, kind in allowed.items() if kind["max_workers"]}
        if not counts:
            raise InputError(f"wanted a type of workers in {self.file}, found max_workers 0 at each: allow one")
        nodes = [allowed[name]["node_config"] for name in counts]
        places = [(node["Placement"]["AvailabilityZone"], node["InstanceType"]) for node in nodes]
        return Workers(
            types={kind: count for (_, kind), count in zip(places, counts.values(), strict=True)},
            places=tuple(dict.fromkeys(places)),
            count=min(sum(counts.values()), most),
            spot="InstanceMarketOptions" in nodes[0],
        )

    def worker_node(self) -> tuple[str, str, dict[str, Any]]:
        """Instance type and zone of the first place that the file allows, and how EC2 starts a machine there."""
        (zone, kind), *_ = self.workers().places
        kinds = self._cluster["available_node_types"]
        nodes = [kind["node_config"] for name, kind in kinds.items() if name != self._cluster["head_node_type"]]
        node = next(
            node for node in nodes if (node["Placement"]["AvailabilityZone"], node["InstanceType"]) == (zone, kind)
        )
        started = {name: value for name, value in node.items() if name != "SubnetIds"}
        return kind, zone, started | {"SubnetId": node["SubnetIds"][0]}

    def project_files(self) -> list[str]:
        """The files and folders of the project that travel to every node."""
        mounts = self._cluster["file_mounts"]
        return [local for remote, local in mounts.items() if "/brats-stream/" in remote]

    def number(self) -> str:
        """The account's own."""
        return str(self.sts.get_caller_identity()["Account"])

    def write(self, pattern: str, value: str) -> None:
        """Put `value` wherever `pattern` matches in the cluster file, which keeps its comments."""
        text, count = re.subn(pattern, value, self.file.read_text())
        if not count:
            raise InputError(f"wanted a place for {value} in {self.file}, found none: write it there yourself")
        self.file.write_text(text)
        say(f"{self.file.name}: {value}")

    def instances(self, *states: str) -> list[dict[str, Any]]:
        """The cluster's instances in those states; without, those that have not been ended."""
        wanted = {"Name": "instance-state-name", "Values": states or ("pending", "running", "stopping", "stopped")}
        tag = {"Name": "tag:ray-cluster-name", "Values": [self.cluster]}
        pages = self.ec2.get_paginator("describe_instances").paginate(Filters=[wanted, tag])
        return [instance for page in pages for group in page["Reservations"] for instance in group["Instances"]]


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


@contextlib.contextmanager
def there_already(*codes: str) -> Iterator[None]:
    """What is there already is left as it is."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in codes:
            raise
