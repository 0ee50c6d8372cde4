"""Data parallelism: a model whose gradients are averaged over the ranks, and errors that say which rank was waited for.

Only gradients are shared, bucket by bucket while the backward pass still computes the others. The loss adds its own
sums up over the ranks (models/rank_sums.py), so any number of ranks trains as one does.
"""

import contextlib
import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch
from torch import distributed, nn
from torch._C._distributed_c10d import GradBucket, PrefixStore, Store  # torch.distributed's own, where mypy finds them

from models import ImportedNetwork
from ray_jobs.settings.groups import ParallelConfig

COMPRESSED = {"fp16": torch.float16, "bf16": torch.bfloat16}
SECONDS_FOR_THE_STORE = 5.0
RANKS_NAMED = 4
MARKS_OF_GLOO = ("gloo", "caused pair closure")

Hook = Callable[[object, GradBucket], torch.futures.Future[torch.Tensor]]


def distribute(model: nn.Module, config: ParallelConfig, *, world_size: int) -> nn.Module:
    """Return `model` wrapped so that a backward pass leaves the ranks' mean gradients in it; itself for one rank.

    Needs the default process group when world_size is above 1. The wrapper shares the model's parameters.
    An imported network may have weights that no gradient reaches: DDP looks for them, and says where there are none.
    """
    if world_size == 1:
        return model
    # A 1 x 1 x 1 convolution's weights lie the same in memory whatever the layout is called, and DDP minds the name.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    imported = isinstance(model, ImportedNetwork)
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    parallel = nn.parallel.DistributedDataParallel(
        model, bucket_cap_mb=config.bucket_mb, find_unused_parameters=imported
    )
    if config.gradient_compression != "none":
        parallel.register_comm_hook(None, make_compression_hook(COMPRESSED[config.gradient_compression]))
    return parallel


def make_compression_hook(dtype: torch.dtype) -> Hook:
    """Return a DDP hook that averages each bucket over the ranks in `dtype`.

    torch's own bf16 hook is refused outside NCCL, though gloo adds bfloat16 up as well.
    """

    def average(_: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        buffer = bucket.buffer()
        # Divided before the sum, which could otherwise overflow.
        compressed = buffer.to(dtype).div_(distributed.get_world_size())
        work = distributed.all_reduce(compressed, async_op=True)
        assert work is not None
        future: torch.futures.Future[torch.Tensor] = work.get_future().then(lambda done: buffer.copy_(done.value()[0]))
        return future

    return average


class LostRankError(RuntimeError):
    """The other ranks did not come to a collective in time, or are gone."""


class RankWatch:
    """Knows where each rank is, and turns the failure of a collective into an error that names rank and step.

    Use it as a context manager around all that talks to other ranks, and tell it where the rank is with `at`. gloo's
    errors say neither rank nor step. NCCL's never reach Python: its watchdog ends the process. So a thread speaks up a
    little before the timeout. `tell` shows a line to whoever watches the run: Ray keeps a worker's error in its logs
    where it starts the workers again.
    """

    def __init__(self, config: ParallelConfig, *, rank: int, world_size: int, tell: Callable[[str], None]) -> None:
        self._timeout, self._rank, self._world_size, self._tell = config.timeout, rank, world_size, tell
        self._place, self._since, self._warned = "start", time.monotonic(), False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._speak_up, name="rank-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._world_size > 1:
            self.at("start")
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise LostRankError in place of a collective's error."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._world_size > 1 and isinstance(error, RuntimeError) and is_of_a_collective(error):
            # Without gloo's source file before and its advice after.
            reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". This is typically")[0]
            message = (
                f"rank {self._rank}, {self._place}: no answer from the other ranks after {self._seconds():.1f} s "
                f"(--parallel.timeout {self._timeout}). {self._say_who_is_elsewhere()} One of them is slow or dead: "
                f"look at its log, or allow more seconds. {reason}"
            )
            self._tell(message)
            raise LostRankError(message) from error

    def at(self, place: str) -> None:
        """Note where this rank is, as "epoch 3, step 17"."""
        if self._world_size == 1:
            return
        self._place, self._since, self._warned = place, time.monotonic(), False
        _places().set(str(self._rank), place)

    def _seconds(self) -> float:
        return time.monotonic() - self._since

    def _say_who_is_elsewhere(self) -> str:
        """Asked in a thread: the store lives with rank 0, and a machine that is gone answers nobody."""
        found: dict[int, str] = {}

        def ask() -> None:
            with contextlib.suppress(RuntimeError):  # rank 0 is gone, and the store with it
                for rank in range(self._world_size):
                    if rank != self._rank and _places().check([str(rank)]):
                        found[rank] = _places().get(str(rank)).decode()

        asking = threading.Thread(target=ask, name="ask-ranks", daemon=True)
        asking.start()
        asking.join(SECONDS_FOR_THE_STORE)
        places = dict(found)
        if not places:
            return "Rank 0, which knows where the others are, does not answer."
        elsewhere = [f"rank {rank} in {place}" for rank, place in sorted(places.items()) if place != self._place]
        if not elsewhere:
            return "The others have come as far."
        more = f" and {len(elsewhere) - RANKS_NAMED} more" if len(elsewhere) > RANKS_NAMED else ""
        return f"Last seen elsewhere: {'; '.join(elsewhere[:RANKS_NAMED])}{more}."

    def _speak_up(self) -> None:
        # Early enough to be read before NCCL's watchdog ends the process.
        limit = max(0.8 * self._timeout, self._timeout - 10)
        while not self._ended.wait(min(1.0, self._timeout / 20)):
            if not self._warned and self._seconds() > limit:
                self._warned = True
                self._tell(
                    f"rank {self._rank}, {self._place}: {self._seconds():.0f} s and not done; whoever waits for other "
                    f"ranks ends after {self._timeout} s (--parallel.timeout). {self._say_who_is_elsewhere()}"
                )


def is_of_a_collective(error: RuntimeError) -> bool:
    """Whether `error` comes from talking to other ranks.

    gloo raises plain RuntimeErrors that name its source files, but for that of a pair which a timeout has closed.
    """
    return isinstance(error, distributed.DistError) or any(mark in str(error) for mark in MARKS_OF_GLOO)


def _places() -> Store:
    # The store that the ranks met through; torch keeps no public name for it.
    return PrefixStore("brats-place", distributed.distributed_c10d._get_default_store())
