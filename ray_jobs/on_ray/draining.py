"""Telling Ray that a node is about to go, so that its workers hear of it and nothing new is placed there."""

import time
from dataclasses import dataclass

from storage import InputError

SECONDS_TO_ANSWER = 10.0


class DrainError(Exception):
    """Ray could not be told, or refused."""


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """A node of the cluster whose head is at `address`."""

    address: str
    node_id: str


def find_node(address: str | None = None, node_id: str | None = None) -> RayNode:
    """Return this machine's node, or the one named, of the cluster at `address` or of the one this machine joined.

    Raises InputError where there is none, or more than one.
    """
    from ray._private import services  # here and below: a flag is answered without Ray

    try:
        found = services.canonicalize_bootstrap_address_or_die(address)
    except ConnectionError as error:
        raise InputError(f"no Ray cluster was found from this machine; run this after `ray start` ({error})") from error
    alive = _living_nodes(found)
    here = [node_id] if node_id is not None else [name for name in services.find_node_ids() if name in alive]
    if len(here) != 1 or here[0] not in alive:
        named = f"the node {node_id}" if node_id is not None else "one Ray node on this machine"
        raise InputError(
            f"wanted {named} in the cluster at {found}, found {', '.join(here) if len(here) > 1 else 'none'}: "
            "run this after `ray start`, or give --node-id"
        )
    return RayNode(address=found, node_id=here[0])


def drain(node: RayNode, *, seconds_left: float, message: str) -> None:
    """Tell the cluster that `node` will be taken away in so many seconds, as `ray drain-node` does.

    Ray Train passes it on to the workers (`ray.train.get_preemption_info`). Raises DrainError.
    """
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

    _tell(node, DRAIN_NODE_REASON_PREEMPTION, message, int((time.time() + seconds_left) * 1000))


def give_back(node: RayNode) -> None:
    """End `node` at once; the autoscaler gives its machine back. Raises DrainError where something runs on it."""
    from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_IDLE_TERMINATION

    _tell(node, DRAIN_NODE_REASON_IDLE_TERMINATION, "its run has gone to another place", 0)


def _tell(node: RayNode, reason: int, message: str, deadline_ms: int) -> None:
    import ray

    try:
        accepted, refusal = ray._raylet.GcsClient(address=node.address).drain_node(
            node.node_id, reason, message, deadline_ms
        )
    except Exception as error:  # the client's own kinds of error are not public
        raise DrainError(f"the cluster at {node.address} could not be told: {error}") from error
    if not accepted:
        raise DrainError(f"the cluster at {node.address} refused: {refusal}")


def _living_nodes(address: str) -> set[str]:
    import ray
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    try:
        nodes = ray._raylet.GcsClient(address=address).get_all_node_info(
            timeout=SECONDS_TO_ANSWER, state_filter=GcsNodeInfo.GcsNodeState.ALIVE
        )
    except Exception as error:
        raise InputError(
            f"the Ray cluster at {address} does not answer ({error}); check --address and the token"
        ) from error
    return {node_id.hex() for node_id in nodes}
