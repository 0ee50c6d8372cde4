"""The ranks' machines: what they cost, and where they stand: what passes between two of AWS's zones is paid for."""

import dataclasses
import socket
from collections.abc import Sequence

from ray_jobs.on_ray.metadata_service import MetadataError, MetadataService
from ray_jobs.on_ray.planned_machines import find_machine, is_on_ec2, metadata_url
from ray_jobs.on_ray.session import Progress, Session, from_every_rank
from ray_jobs.settings.prices import Machine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What the metadata service says of a rank's machine; nothing off EC2."""

    host: str
    zone: str | None = None
    machine: Machine | None = None


def look_around(session: Session) -> list[Machine | None]:
    """Return the run's machines, None for what is no machine of AWS's. Every rank must call it.

    Ranks in different zones are told of to whoever watches. One machine that says it is not AWS's asks nobody.
    """
    if session.ranks_here == session.world_size and not is_on_ec2():
        return [None]
    places = from_every_rank(find_place(metadata_url()), session)
    notice = describe_zones([place.zone for place in places])
    if notice is not None and session.rank == 0:
        session.tell(Progress(stage="note", message=notice))
    return [*{place.host: place.machine for place in places}.values()]


def find_place(url: str) -> Place:
    """This machine, by the metadata service at `url`."""
    host = socket.gethostname()
    try:
        return Place(host=host, zone=MetadataService(url).zone(), machine=find_machine(url))
    except MetadataError:
        return Place(host=host)


def describe_zones(zones: Sequence[str | None]) -> str | None:
    """What to say of the ranks' zones, in their order; None where those that are known are one."""
    places: dict[str, list[str]] = {}
    for rank, zone in enumerate(zones):
        if zone is not None:
            places.setdefault(zone, []).append(str(rank))
    if len(places) < 2:
        return None
    told = "; ".join(f"{zone} has {', '.join(ranks)}" for zone, ranks in sorted(places.items()))
    return (
        f"notice: the ranks are in {len(places)} zones ({told}): AWS takes $0.01 a GB at either end for their "
        "gradients; take places into the cluster file, as cluster/aws.yaml has them"
    )
