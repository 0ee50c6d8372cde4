"""Drain this Ray node when AWS is about to take the spot instance away: `python ray_jobs/spot_watcher.py --help`."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ray_jobs.on_ray.draining import DrainError, drain, find_node
from ray_jobs.on_ray.kubernetes_node import KubernetesNode
from ray_jobs.on_ray.metadata_service import ADDRESS, NOTICE, MetadataError, MetadataService
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from storage import InputError

log = logging.getLogger("spot_watcher")


@dataclass(frozen=True, kw_only=True)
class SpotWatcherConfig:
    """Watch for the end of this spot instance; run one on every worker node, after `ray start`.

    On a notice it drains the Ray node: training there saves a checkpoint at once. Then it ends.
    """

    metadata_url: str = ADDRESS
    """The instance metadata service."""
    kubernetes_node: str | None = None
    """Ask Kubernetes instead for the taints of the node of this name, on which this pod is."""
    every_seconds: float = 5.0
    """Seconds between two questions; AWS advises 5."""
    on_rebalance: Literal["log", "drain"] = "log"
    """What to do when AWS recommends to rebalance: most such instances live on for long."""
    address: str | None = None
    """The cluster's head, host:port. Default: RAY_ADDRESS, or the cluster that `ray start` joined here."""
    node_id: str | None = None
    """The Ray node to drain. Default: the one on this machine."""
    leave_in: float | None = None
    """Ask nobody: drain the node now, because it goes in so many seconds, and wait for that, as a pod does."""

    def __post_init__(self) -> None:
        if self.every_seconds <= 0:
            raise InputError(f"--every-seconds must be more than 0, got {self.every_seconds}")
        if self.leave_in is not None and self.leave_in <= 0:
            raise InputError(f"--leave-in must be more than 0, got {self.leave_in}")
        if not self.metadata_url.startswith(("http://", "https://")):
            raise InputError(f"--metadata-url must begin with http:// or https://, got {self.metadata_url}")


Drain = Callable[[float, str], None]
"""Drain the node: seconds left, and why. Raises DrainError."""


def main(arguments: Sequence[str]) -> int:
    """Run the job the command line describes; return the exit status."""
    config = read_flags(SpotWatcherConfig, arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    if config.leave_in is not None:
        node = find_node(config.address, config.node_id)
        drain(node, seconds_left=config.leave_in, message="the pod must go")
        time.sleep(config.leave_in)
        return 0
    if config.kubernetes_node is None:  # a pod begins to watch before Ray has begun there
        node = find_node(config.address, config.node_id)
        log.info("watching node %s of the cluster at %s", node.node_id, node.address)

    def drain_this_node(seconds_left: float, reason: str) -> None:
        begun = time.monotonic()
        node = find_node(config.address, config.node_id)  # anew: Ray may have been started again since
        left = max(0.0, seconds_left - (time.monotonic() - begun))
        drain(node, seconds_left=left, message=reason)

    watch(config, drain_this_node)
    return 0


def watch(config: SpotWatcherConfig, drain_node: Drain) -> None:
    """Ask until the node is drained. What goes wrong is logged when it changes, and tried again."""
    name = config.kubernetes_node
    service = MetadataService(config.metadata_url) if name is None else KubernetesNode(name)
    trouble: str | None = None
    recommended = False
    while True:
        try:
            if drain_if_told(config, service, drain_node):
                return
            if not recommended and service.rebalance_recommended():
                recommended = True
                log.info("AWS recommends to rebalance: this instance is at a higher risk of interruption")
            now = None
        except (MetadataError, DrainError, InputError) as error:
            now = str(error)
        if now != trouble:
            log.warning("%s; asking again every %g s", now or "all is well again", config.every_seconds)
            trouble = now
        time.sleep(config.every_seconds)


def drain_if_told(config: SpotWatcherConfig, service: MetadataService | KubernetesNode, drain_node: Drain) -> bool:
    """Drain the node if AWS says that it will go, or may, where that is to count. Returns whether it did."""
    notice = service.interruption()
    if notice is not None:
        seconds_left, reason = notice.seconds_left(), f"spot interruption: {notice.action} at {notice.time.isoformat()}"
    elif config.on_rebalance == "drain" and service.rebalance_recommended():
        seconds_left, reason = NOTICE.total_seconds(), "EC2 rebalance recommendation"
    else:
        return False
    drain_node(seconds_left, reason)
    log.warning("%s; node drained with %.0f s left", reason, seconds_left)
    return True


if __name__ == "__main__":
    sys.exit(run_command(main))
