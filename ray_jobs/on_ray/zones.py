"""Where the ranks' machines stand: on AWS whatever passes between two zones is paid for, at either end."""

from collections.abc import Sequence

from ray_jobs.on_ray.metadata_service import ADDRESS, MetadataError, MetadataService
from ray_jobs.on_ray.session import Progress, Session, from_every_rank


def tell_of_zones(session: Session, url: str = ADDRESS) -> None:
    """Tell whoever watches when ranks are in different zones. Every rank must call it; one machine asks nobody."""
    if session.ranks_here == session.world_size:
        return
    notice = describe_zones(from_every_rank(find_zone(url), session))
    if notice is not None and session.rank == 0:
        session.tell(Progress(stage="note", message=notice))


def find_zone(url: str) -> str | None:
    """This machine's zone, by the metadata service at `url`; None off EC2."""
    try:
        return MetadataService(url).zone()
    except MetadataError:
        return None


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
