"""Which machines a run will have, before any is rented: of the cluster's file on its head, or this one of AWS's."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray_jobs.on_ray.address import cluster_file, on_a_cluster
from ray_jobs.on_ray.metadata_service import ADDRESS, MetadataError, MetadataService
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.prices import KINDS, Machine
from storage import InputError

VENDOR = Path("/sys/class/dmi/id/sys_vendor")
OTHER_ADDRESS = "AWS_EC2_METADATA_SERVICE_ENDPOINT"  # AWS's own name for it
PROJECT_FILE = Path(__file__).parents[2] / "cluster" / "aws.yaml"


def metadata_url() -> str:
    """Where the instance metadata service is asked."""
    return os.environ.get(OTHER_ADDRESS) or ADDRESS


def is_on_ec2() -> bool:
    """Whether this machine's firmware, or the environment, says that it is one of AWS's."""
    try:
        return OTHER_ADDRESS in os.environ or VENDOR.read_text().startswith("Amazon")
    except OSError:
        return False


def find_machine(url: str) -> Machine | None:
    """This machine, by the metadata service at `url`; None off EC2."""
    service = MetadataService(url)
    try:
        kind = service.instance_type()
        return None if kind is None else Machine(kind=kind, spot=service.is_spot())
    except MetadataError:
        return None


def read_worker_machines(file: Path) -> list[Machine]:
    """The kinds of machines that a cluster's file allows its workers, in its order; none where they are not AWS's."""
    import yaml

    cluster = yaml.safe_load(file.read_text())
    kinds: dict[str, Any] = cluster.get("available_node_types", {})
    workers = [kind for name, kind in kinds.items() if name != cluster["head_node_type"]]
    nodes = [kind["node_config"] for kind in workers if kind.get("max_workers", 1)]
    machines = [
        Machine(kind=node["InstanceType"], spot="InstanceMarketOptions" in node)
        for node in nodes
        if "InstanceType" in node
    ]
    return [*dict.fromkeys(machines)]


def plan_machines() -> list[Machine]:
    """The machines that a run started here may have; none where nobody knows them."""
    own = cluster_file()
    if on_a_cluster():
        return read_worker_machines(own) if own.exists() else []
    machine = find_machine(metadata_url()) if is_on_ec2() else None
    return [] if machine is None else [machine]


def dollars_an_hour(machine: Machine, workers: int) -> float | None:
    """What as many workers cost on such machines, a GPU each; None where the price is not known."""
    if machine.dollars is None:
        return None
    return machine.dollars * math.ceil(workers / KINDS[machine.kind].gpus)


def check_limit(config: TrainConfig) -> None:
    """Raise InputError for a limit of cost that cannot be counted, or that the cheapest machines are above."""
    if config.max_cost is None and config.max_cost_an_hour is None:
        return
    machines = plan_machines()
    _refuse_unknown(machines)
    hours = {str(machine): dollars_an_hour(machine, config.workers or 1) or 0.0 for machine in machines}
    name, least = min(hours.items(), key=lambda item: item[1])
    if config.max_cost_an_hour is not None and least > config.max_cost_an_hour:
        raise InputError(
            f"--max-cost-an-hour {config.max_cost_an_hour:g} is below what {config.workers or 1} workers cost at "
            f"least, ${least:.2f} an hour ({name}): give as much, or fewer --workers"
        )


def _refuse_unknown(machines: Sequence[Machine]) -> None:
    unknown = [machine.kind for machine in machines if machine.dollars is None]
    if unknown or not machines:
        what = f"the price of {', '.join(unknown)} is" if unknown else "the prices of the machines here are"
        raise InputError(
            f"--max-cost cannot be counted: {what} not known; leave it out, or train on a cluster of cluster/aws.yaml "
            f"({', '.join(KINDS)})"
        )
