"""How Ray Train's workers are joined by torch.distributed: as its own TorchConfig does it, in the workers alone.

TorchConfig imports PyTorch into whoever holds it: the driver and the run's controller, neither of which computes.
"""

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray._common.network_utils import build_address
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.util import TrainingFramework

SECONDS_TO_LEAVE = 5.0


@dataclass(frozen=True, kw_only=True)
class ProcessGroup(BackendConfig):
    """What the workers talk over, and how long one waits for another."""

    backend: str
    seconds: int

    @property
    def backend_cls(self) -> type["JoinedWorkers"]:
        """What joins them."""
        return JoinedWorkers

    @property
    def framework(self) -> TrainingFramework:
        """What the dashboard says of the run."""
        return TrainingFramework.TORCH

    def to_dict(self) -> dict[str, Any]:
        """What the dashboard shows of the run."""
        return {"backend": self.backend, "timeout_s": self.seconds}


class JoinedWorkers(Backend):
    """Joins the workers before training, and parts them after it. Lives in the controller."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: ProcessGroup) -> None:
        """Join them at a port of rank 0's machine."""
        address, port = worker_group.execute_single(0, get_address_and_port)
        size, url = len(worker_group), f"tcp://{build_address(address, port)}"
        ray.get(
            [worker_group.execute_single_async(rank, join, backend_config, url, rank, size) for rank in range(size)]
        )

    def on_shutdown(self, worker_group: BaseWorkerGroup, backend_config: ProcessGroup) -> None:
        """Part them; one that does not answer is ended all the same."""
        ray.wait(worker_group.execute_async(part), num_returns=len(worker_group), timeout=SECONDS_TO_LEAVE)


def join(group: ProcessGroup, url: str, rank: int, size: int) -> None:
    """Runs in each worker."""
    from ray.train.torch import config

    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(group.backend, rank, size, url, group.seconds)


def part() -> None:
    """Runs in each worker."""
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=int(os.environ["WORLD_SIZE"]) > 1)
