"""A rank of network_check.py, in a network namespace: python -m benchmarks.network_worker RANK FOLDER.

Its network sleeps for as long as each layer is taken to compute, and its gradients are real: DDP, its buckets, gloo and
TCP do what they do in training, whatever else the machine does.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, distributed, nn

from models.rank_sums import sum_over_ranks
from ray_jobs.settings.groups import ParallelConfig
from ray_jobs.training.parallel import distribute

WARM_UP = 3
LATENCY_ROUNDS = 50
PORT = 29411


@dataclass(frozen=True, kw_only=True)
class Case:
    """mbit: the link's rate, 0 for as fast as it goes. parallel: ParallelConfig's fields."""

    mbit: int
    parallel: dict[str, Any]


class Sleep(torch.autograd.Function):
    """A layer: takes its time, twice that in the backward pass, and has a gradient for its weights then."""

    @staticmethod
    def forward(context: Any, features: Tensor, weight: Tensor, seconds: float) -> Tensor:
        context.seconds, context.shape = seconds, weight.shape
        time.sleep(seconds)
        return features.clone()

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        time.sleep(2 * context.seconds)
        return gradients[0], torch.ones(context.shape), None


class SleepingNetwork(nn.Module):
    """Layers of (forward seconds, parameters)."""

    def __init__(self, layers: Sequence[tuple[float, int]]) -> None:
        super().__init__()
        self.seconds = [seconds for seconds, _ in layers]
        self.weights = nn.ParameterList(torch.zeros(parameters) for _, parameters in layers)

    def forward(self, features: Tensor) -> Tensor:
        for seconds, weight in zip(self.seconds, self.weights, strict=True):
            features = Sleep.apply(features, weight, seconds)
        return features


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    plan = json.loads((folder / "plan.json").read_text())
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://{plan['address']}:{PORT}",
        rank=rank,
        world_size=plan["ranks"],
        timeout=timedelta(seconds=120),
    )
    limit_link(0)
    network = SleepingNetwork([(seconds, parameters) for seconds, parameters in plan["layers"]])
    latency, alone = measure_latency(), measure(network, network, plan["steps"])
    found = []
    for case in (Case(**each) for each in plan["cases"]):
        limit_link(case.mbit)
        distributed.barrier()
        parallel = distribute(network, ParallelConfig(**case.parallel), world_size=plan["ranks"])
        found.append(measure(network, parallel, plan["steps"]))
    distributed.destroy_process_group()
    (folder / f"{rank}.json").write_text(json.dumps({"latency": latency, "alone": alone, "cases": found}))


def limit_link(mbit: int) -> None:
    """Hold what this namespace sends to a rate. A token bucket of two milliseconds, or tc's timers cannot keep it."""
    subprocess.run(["tc", "qdisc", "del", "dev", "eth0", "root"], capture_output=True)
    if mbit:
        burst = max(128_000, mbit * 1_000_000 // 8 // 500)
        bucket = ["tbf", "rate", f"{mbit}mbit", "burst", str(burst), "latency", "50ms"]
        subprocess.run(["tc", "qdisc", "add", "dev", "eth0", "root", *bucket], check=True)


def measure_latency() -> float:
    """Seconds of a turn: a ring of N ranks adds up a number in 2 (N - 1) of them."""
    number = torch.zeros(1)

    def add_up() -> None:
        distributed.all_reduce(number)

    return median(time_each(add_up, LATENCY_ROUNDS)) / (2 * (distributed.get_world_size() - 1))


def measure(network: nn.Module, parallel: nn.Module, steps: int) -> dict[str, float]:
    """The median step, the CPU time of a step, and the bytes a step sends."""
    together = parallel is not network

    def step() -> None:
        network.zero_grad(set_to_none=True)
        loss = parallel(torch.zeros(1, requires_grad=True)).sum()
        (sum_over_ranks(loss) if together else loss).backward()

    time_each(step, WARM_UP)
    cpu, sent = time.process_time(), bytes_sent()
    seconds = time_each(step, steps)
    return {
        "seconds": median(seconds),
        "cpu_seconds": (time.process_time() - cpu) / steps,
        "bytes": (bytes_sent() - sent) / steps,
    }


def time_each(work: Callable[[], None], times: int) -> list[float]:
    """The seconds of each of several turns."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return seconds


def bytes_sent() -> int:
    """What has left this namespace, frames and all."""
    return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    main(int(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # while the interpreter is taken down, a thread of gloo that wants it would abort the process
