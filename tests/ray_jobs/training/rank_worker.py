"""One rank of runs without Ray: python rank_worker.py RANK FOLDER. Two ranks.

Trains each plan of FOLDER/plans.pkl to its end and saves what test_parallel.py looks at as FOLDER/<rank>.pt. Beside a
plan is its job: "train"; or what befalls the second rank at its fourth step: "sleep" until the first has given it up,
"die"; or "dawdle" in every step; or "starve", with memory for one patch at once.
"""

import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.distributed_c10d import _set_pg_timeout

from dali_pipelines import Batch
from models import UNet
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.training.parallel import RankWatch
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.rehearsal import rehearse
from ray_jobs.training.run import Run, prepare
from ray_jobs.training.train_loop import train_step

DAWDLE_SECONDS = 0.3
START = timedelta(seconds=120)  # on a busy machine one rank may be ready long before the other


def main(rank: int, folder: Path) -> None:
    plans: dict[str, tuple[str, TrainPlan]] = pickle.loads((folder / "plans.pkl").read_bytes())
    store = distributed.FileStore(str(folder / "rendezvous"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=START)
    results = {}
    for name, (job, plan) in plans.items():
        befalls = partial(befall, job, rank, log=folder / "0.log", timeout=plan.config.parallel.timeout)
        session = LocalSession(folder / name, torch.device("cpu"), rank=rank, world_size=2)
        with memory_for_one() if job == "starve" and rank == 1 else nullcontext():
            results[name] = train_all(plan, session, befalls)
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def train_all(plan: TrainPlan, session: LocalSession, befalls: Callable[[int], None]) -> dict[str, Any]:
    """Every step of the plan, and the weights it comes to."""
    run = rehearse(prepare(plan, session), session)
    run.model.train()
    order: list[str] = []
    tell = partial(print, "told:", flush=True)
    watch = RankWatch(plan.config.parallel, rank=session.rank, world_size=session.world_size, tell=tell)
    steps: list[dict[str, Any]] = []
    with watch, run.loader as loader, recorded(run, order):
        for epoch in range(plan.config.epochs):
            for batch in loader:
                befalls(len(steps))
                watch.at(f"epoch {epoch + 1}, step {loader.step}")
                steps.append(take(run, batch, order))
    weights = {name: value.detach() for name, value in run.model.named_parameters()}
    return {"steps": steps, "weights": weights}


def take(run: Run, batch: Batch, order: list[str]) -> dict[str, Any]:
    """One step: its loss, its gradient norm, and what was sent and computed in which order."""
    order.clear()
    begun = time.perf_counter()
    result = train_step(run, batch)
    seconds = time.perf_counter() - begun
    return {
        "loss": result.loss,
        "norm": result.gradient_norm,
        "order": list(order),
        "cases": batch.case_ids,
        "seconds": seconds,
    }


@contextmanager
def recorded(run: Run, order: list[str]) -> Iterator[None]:
    """Fill `order` with "sent <bytes>" for each bucket and the name of each parameter whose gradient is there."""
    if not isinstance(run.parallel, torch.nn.parallel.DistributedDataParallel):
        yield
        return
    send = distributed.all_reduce

    def record(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        order.append(f"sent {tensor.numel() * tensor.element_size()}")
        return send(tensor, *arguments, **options)

    if run.plan.config.parallel.gradient_compression == "none":
        run.parallel.register_comm_hook(None, allreduce_hook)  # DDP's own way is in C++ and cannot be watched
    for name, parameter in run.model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: order.append(name))
    distributed.all_reduce = record
    try:
        yield
    finally:
        distributed.all_reduce = send


@contextmanager
def memory_for_one() -> Iterator[None]:
    """Let every network run out of memory that computes more than one patch at once."""
    forward = UNet.forward

    def limited(network: UNet, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if len(image) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(network, image)

    UNet.forward = limited  # type: ignore[method-assign]
    try:
        yield
    finally:
        UNet.forward = forward  # type: ignore[method-assign]


def befall(job: str, rank: int, step: int, *, log: Path, timeout: int) -> None:
    """What the job has in store before step number `step`."""
    if job == "dawdle" and rank == 1:
        time.sleep(DAWDLE_SECONDS)
    if job in ("sleep", "die") and step == 3:
        _set_pg_timeout(timedelta(seconds=timeout), distributed.group.WORLD)
        if rank == 1 and job == "sleep":
            while "LostRankError" not in log.read_text():  # the test kills this rank if that never comes
                time.sleep(0.1)
        elif rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    status = 0
    try:
        main(int(sys.argv[1]), Path(sys.argv[2]))
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)  # while the interpreter is taken down, a thread of gloo that wants it would abort the process
