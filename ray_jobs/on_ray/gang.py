"""A run's workers as a gang: all at one place, and where that cannot give them, all at the next.

Ray's autoscaler would take what each place has, and so put ranks into several zones. Here the workers ask for one place
at a time, Ray Train's policies decide as they do, and what came at a place that is left is given back at once.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.scaling_policy.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)

from ray_jobs.on_ray.draining import DrainError, RayNode, give_back
from ray_jobs.on_ray.places import Choice, Place, Refusals

SECONDS_BETWEEN_LOOKS, SECONDS_WHILE_ALL_IS_WELL = 2.0, 20.0
logger = logging.getLogger(__name__)


def gang_policy(scaling: ScalingConfig, places: Sequence[Place], monitor_log: Path, board: Any) -> ScalingPolicy:
    """Return the policy of a run whose workers are at one of `places`; `board` hears what was tried."""
    kind = ElasticGang if scaling.elasticity_enabled else FixedGang
    return kind(dataclasses.replace(scaling), places, monitor_log, board)


class Gang(ScalingPolicy):
    """Where the workers are. It lives in Ray Train's controller, which is on the head."""

    def __init__(self, scaling: ScalingConfig, places: Sequence[Place], monitor_log: Path, board: Any) -> None:
        super().__init__(scaling)
        self._places, self._monitor_log, self._board = places, monitor_log, board
        self._ran = False
        self._next_look = 0.0

    def after_controller_start(self, train_run_context: Any) -> None:
        """Begin with the first place that has enough idle machines, as after another run; where none has, the first."""
        nodes, needed = ray.nodes(), self.scaling_config.min_workers
        first = next((index for index, place in enumerate(self._places) if room_at(place, nodes) >= needed), 0)
        self._choice = Choice(self._places, needed=needed, now=time.monotonic(), first=first)
        self._refusals = Refusals(self._monitor_log)
        self._ask_here()
        super().after_controller_start(train_run_context)

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start workers where the place has room for enough of them, and see to it that some place will."""
        if self._ran:  # at once: what is left of the workers ends then, and sets their machines free
            self._ran = False
            self._choice.ask_anew(time.monotonic())
            decision = super().make_decision_for_non_running_worker_group()
            return decision if isinstance(decision, ResizeDecision) else self._least()
        if not self._enough_after_a_look():
            self._maybe_send_resource_request()
            time.sleep(SECONDS_BETWEEN_LOOKS)  # Ray's loop would ask again at once
            return NoopDecision()
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        """What comes late to a place that was left is given back, too."""
        self._ran = True
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + SECONDS_WHILE_ALL_IS_WELL
            self._refusals.last(self._choice.place.name)  # of what has come since, or of others
            self._give_back(ray.nodes())
        return super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)

    def _least(self) -> ResizeDecision:
        scaling = self.scaling_config
        return ResizeDecision(
            num_workers=scaling.min_workers, resources_per_worker=scaling._resources_per_worker_not_none
        )

    def _ask_here(self) -> None:
        self.scaling_config.resources_per_worker = self._choice.place.per_worker(use_gpu=self.scaling_config.use_gpu)

    def _enough_after_a_look(self) -> bool:
        place, nodes = self._choice.place, ray.nodes()
        there = room_at(place, nodes)
        note = self._choice.look(
            time.monotonic(),
            there=there,
            coming=machines_coming(place.name) * place.workers_a_machine,
            refusal=self._refusals.last(place.name),
        )
        if note is not None:
            logger.warning(note)
            if self._board is not None:
                self._board.tell.remote({"message": f"notice: {note}"})
            self._ask_here()
            self._send_resource_request()
        self._give_back(nodes)
        return note is None and there >= self.scaling_config.min_workers

    def _give_back(self, nodes: Sequence[dict[str, Any]]) -> None:
        """End the machines at places that were left, but for those that others work on."""
        address = ray.get_runtime_context().gcs_address
        for node in nodes:
            if node["Alive"] and self._choice.left & node["Resources"].keys():
                with contextlib.suppress(DrainError):  # not idle, or going already
                    give_back(RayNode(address=address, node_id=node["NodeID"]))


class FixedGang(Gang, FixedScalingPolicy):
    """Of a run with a fixed number of workers."""


class ElasticGang(Gang, ElasticScalingPolicy):
    """Of a run that goes on with fewer."""


def room_at(place: Place, nodes: Sequence[dict[str, Any]]) -> int:
    """How many workers the machines of the place that stay have room for now."""
    going = ray._private.state.state.get_draining_nodes()
    free = ray._private.state.available_resources_per_node()
    staying = [node["NodeID"] for node in nodes if node["Alive"] and node["NodeID"] not in going]
    return sum(int(free.get(name, {}).get(place.name, 0)) for name in staying)


def machines_coming(name: str) -> int:
    """How many machines of that node type were given and are being set up."""
    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    return sum(node.ray_node_type_name == name for node in status.pending_nodes)
