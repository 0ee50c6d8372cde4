"""What a training process knows of the world: its rank and device, where results go, how checkpoints come and go.

`LocalSession` is one process without Ray (benchmarks, a GPU machine that has no Ray); `RaySession` is a Ray Train
worker. The training loop sees only `Session`.
"""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch


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
    message: str = ""


class Session(Protocol):
    """A training process's place in the run. Ranks are global."""

    rank: int
    world_size: int
    device: torch.device
    cpu_threads: int  # what this rank may compute with, where the ranks of a node share its cores
    artifacts: Path  # a folder of rank 0's for events and figures; `publish` brings it to the run folder

    def latest_checkpoint(self) -> Any:
        """Context manager: the folder of the last recorded checkpoint, or None."""

    def best_checkpoint(self) -> Any:
        """Context manager: the folder of the checkpoint with the best validation IoU."""

    def report(self, metrics: Mapping[str, float], folder: Path | None, name: str) -> None:
        """Record an epoch's metrics with rank 0's checkpoint `folder` under `name`. Every rank must call it."""

    def publish(self) -> None:
        """Bring `artifacts` to the run folder."""

    def tell(self, progress: Progress) -> None:
        """Tell whoever watches. Never waits."""


class LocalSession:
    """One process that keeps its run in `folder`, without Ray."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.rank, self.world_size, self.device = 0, 1, device
        self.cpu_threads = share_of_cores(1)
        self.artifacts = folder
        self.history: list[dict[str, float]] = []
        self._checkpoints: list[tuple[float, Path]] = []
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        yield self._checkpoints[-1][1] if self._checkpoints else None

    @contextmanager
    def best_checkpoint(self) -> Iterator[Path]:
        yield max(self._checkpoints)[1]

    def report(self, metrics: Mapping[str, float], folder: Path | None, name: str) -> None:
        self.history.append(dict(metrics))
        if folder is not None:
            kept = self.artifacts / name
            shutil.copytree(folder, kept, dirs_exist_ok=True)
            self._checkpoints.append((metrics["iou_mean"], kept))

    def publish(self) -> None:
        pass  # artifacts are in the run folder already

    def tell(self, progress: Progress) -> None:
        pass


class RaySession:
    """A Ray Train worker's place. `board` is the actor that the driver's progress bar reads, if there is one."""

    def __init__(self, board: Any) -> None:
        import ray.train
        import ray.train.torch

        self._train = ray.train
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.cpu_threads = share_of_cores(context.get_local_world_size())
        self._storage = context.get_storage()
        self._board = board
        local = self._local_run_folder()
        # On a local disk the event files are written where they stay, so TensorBoard follows them as they grow.
        self.artifacts = local if local is not None else Path(tempfile.mkdtemp(prefix="brats-artifacts-"))
        self.artifacts.mkdir(parents=True, exist_ok=True)

    def _local_run_folder(self) -> Path | None:
        filesystem = self._storage.storage_filesystem
        is_local = filesystem.type_name == "local"
        return Path(self._storage.experiment_fs_path) if is_local else None

    @contextmanager
    def latest_checkpoint(self) -> Iterator[Path | None]:
        checkpoint = self._train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    @contextmanager
    def best_checkpoint(self) -> Iterator[Path]:
        reported = self._train.get_all_reported_checkpoints()
        best = max(reported, key=lambda each: each.metrics["iou_mean"])
        with best.checkpoint.as_directory() as folder:
            yield Path(folder)

    def report(self, metrics: Mapping[str, float], folder: Path | None, name: str) -> None:
        checkpoint = None if folder is None else self._train.Checkpoint.from_directory(str(folder))
        self._train.report(dict(metrics), checkpoint=checkpoint, checkpoint_dir_name=name)

    def publish(self) -> None:
        if self._local_run_folder() is not None:
            return
        import pyarrow.fs

        pyarrow.fs.copy_files(
            str(self.artifacts),
            self._storage.experiment_fs_path,
            source_filesystem=pyarrow.fs.LocalFileSystem(),
            destination_filesystem=self._storage.storage_filesystem,
        )

    def tell(self, progress: Progress) -> None:
        if self._board is not None:
            self._board.tell.remote(dataclasses.asdict(progress))


def share_of_cores(ranks: int) -> int:
    """Return how many threads each of `ranks` processes on this machine may compute with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks)
