"""What a training process knows of the world: its rank and device, where results go, how checkpoints come and go.

`LocalSession` is one process without Ray (benchmarks, a GPU machine that has no Ray); `RaySession` is a Ray Train
worker. The training loop sees only `Session`.
"""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch

from dali_pipelines.devices import make_current
from ray_jobs.on_ray.cores import share_of_cores
from ray_jobs.on_ray.live_metrics import LiveMetrics
from storage import InputError
from storage.store.objects import Objects

T = TypeVar("T")

# What a run comes to, by which watching/restarts.py tells what a loss cost it; "saved": an epoch's last checkpoint is.
Moment = Literal["begun", "ready", "batch", "step", "notice", "left", "lost", "saved"]
SECONDS_WITHOUT_A_DEADLINE = 120.0  # Ray Train's own, from when it knows of a node that goes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of news from the run to whoever watches it."""

    stage: str
    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = float("nan")
    patches_per_second: float = 0.0
    data_wait_fraction: float = 0.0
    score_name: str = ""
    score: float = float("nan")  # of the last validation in this start of the run, mean over the regions
    message: str = ""


class Session(Protocol):
    """A training process's place in the run. Ranks are global."""

    rank: int
    world_size: int
    device: torch.device
    ranks_here: int  # that share this node's cores and its cache
    cpu_threads: int  # what this rank may compute with of those cores
    folder: str  # the run's, a path or an s3:// URL: checkpoints go there
    metrics: LiveMetrics | None  # the rank's figures in Prometheus, where there is Ray
    artifacts: Path  # a folder of rank 0's for events and figures; `publish` brings it to the run folder

    def report(self, metrics: Mapping[str, float | str]) -> None:
        """Record an epoch's metrics. Every rank must call it."""

    def publish(self) -> None:
        """Bring `artifacts` to the run folder; where it cannot be reached tell so, and try again the next time."""

    def tell(self, progress: Progress) -> None:
        """Tell whoever watches. Never waits."""

    def stop_asked(self) -> bool:
        """Whether whoever watches wants the run to save and end. Never waits."""

    def mark(self, moment: Moment, step: int = 0) -> None:
        """Note on rank 0 that the run has come to `moment`, after `step` steps in all. Never waits."""

    def node_goes_at(self) -> float | None:
        """When a node of the run will be taken away, as a Unix time; None where none will. Every rank must call it."""


class LocalSession:
    """One process that keeps its run in `folder`, without Ray; or one of several that torch.distributed has joined.

    Several need a backend for what lies on the hosts too: "gloo", or on GPUs "cpu:gloo,cuda:nccl".
    """

    def __init__(self, folder: Path, device: torch.device, *, rank: int = 0, world_size: int = 1) -> None:
        self.rank, self.world_size, self.device = rank, world_size, device
        make_current(device)  # before ranks meet
        self.ranks_here = world_size
        self.cpu_threads = share_of_cores(self.ranks_here)
        self.folder, self.artifacts = str(folder), folder
        self.metrics: LiveMetrics | None = None
        self.history: list[dict[str, float | str]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def report(self, metrics: Mapping[str, float | str]) -> None:
        self.history.append(dict(metrics))

    def publish(self) -> None:
        pass  # artifacts are in the run folder already

    def tell(self, progress: Progress) -> None:
        pass

    def stop_asked(self) -> bool:
        return False

    def mark(self, moment: Moment, step: int = 0) -> None:
        pass

    def node_goes_at(self) -> float | None:
        return None


class RaySession:
    """A Ray Train worker's place in the run at `folder`. `board` is the actor the driver reads, if there is one."""

    def __init__(self, folder: str, board: Any) -> None:
        import ray
        import ray.train.torch

        self._ray = ray
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        make_current(self.device)  # before ranks meet
        self.ranks_here = context.get_local_world_size()
        self.cpu_threads = share_of_cores(self.ranks_here)
        self.metrics: LiveMetrics | None = LiveMetrics(context.get_experiment_name(), self.rank)
        self.folder = folder
        self._board: Any = board
        self._answer: Any = None
        self._stop_asked = False
        # On a local disk the event files are written where they stay, so TensorBoard follows them as they grow.
        self._remote = "://" in folder
        self.artifacts = Path(tempfile.mkdtemp(prefix="brats-artifacts-")) if self._remote else Path(folder)

    def report(self, metrics: Mapping[str, float | str]) -> None:
        self._ray.train.report(dict(metrics))

    def publish(self) -> None:
        if not self._remote:
            return
        run = Objects(self.folder)
        self._here_alone = True
        try:
            for file in self.artifacts.iterdir():
                run.put(file.name, file.read_bytes())
            self._here_alone = False
        except InputError as error:  # they still lie here
            self.tell(Progress(stage="note", message=f"events and figures are brought over later: {error}"))

    def end(self) -> None:
        """Leave nothing in this machine's temp folder, but for artifacts that cannot be brought to the run folder."""
        self.publish()
        if self._remote and not self._here_alone:
            shutil.rmtree(self.artifacts, ignore_errors=True)

    def tell(self, progress: Progress) -> None:
        if self._board is not None:
            self.stop_asked()
            self._answer = self._board.tell.remote(dataclasses.asdict(progress))

    def stop_asked(self) -> bool:
        # The board answers each piece of news; a question of its own every step would cost a message a step.
        if self._answer is not None and self._ray.wait([self._answer], timeout=0)[0]:
            self._stop_asked = self._stop_asked or self._ray.get(self._answer)
            self._answer = None
        return self._stop_asked

    def mark(self, moment: Moment, step: int = 0) -> None:
        if self._board is not None and self.rank == 0:
            self._board.mark.remote(moment, step)

    def hire(self, machines: Sequence[object]) -> None:
        """Tell which machines the ranks have; of rank 0's news."""
        if self._board is not None and self.rank == 0:
            self._board.hire.remote(list(machines))

    def node_goes_at(self) -> float | None:
        info = self._ray.train.get_preemption_info()
        if info is None:
            return None
        return float(info.deadline_ms / 1000) if info.deadline_ms else time.time() + SECONDS_WITHOUT_A_DEADLINE


def from_every_rank(value: T, session: Session) -> list[T]:
    """Return each rank's `value`, in their order. Every rank must call it."""
    if session.world_size == 1:
        return [value]
    everyone: list[Any] = [None] * session.world_size
    torch.distributed.all_gather_object(everyone, value)
    return everyone


def mean_over_ranks(values: Sequence[float], session: Session) -> list[float]:
    """Return the mean over the ranks of each of `values`. Every rank must call it."""
    return [sum(column) / len(column) for column in zip(*from_every_rank(values, session), strict=True)]
