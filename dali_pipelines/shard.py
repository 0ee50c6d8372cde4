"""Which samples of a global batch belong to this process: rank arithmetic as a value passed in."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from dali_pipelines.sampling import SamplingConfig
from storage.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One data-parallel position. `rank` is the global rank, never the rank within a node.

    Raises InputError for a rank that is not below `world_size`.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise InputError(f"wanted 0 <= rank < world_size, got rank {self.rank} of {self.world_size}; fix the shard")

    def local_batch_size(self, global_batch_size: int) -> int:
        """Samples of each global batch that this rank computes; raises InputError when the split is uneven."""
        if global_batch_size % self.world_size:
            below = global_batch_size // self.world_size * self.world_size
            fitting = ", ".join(str(size) for size in (below, below + self.world_size) if size)
            raise InputError(
                f"global_batch_size must divide by the number of workers ({self.world_size}), got {global_batch_size}; "
                f"use {fitting} or another multiple of {self.world_size}"
            )
        return global_batch_size // self.world_size

    def sample_indices(self, step: int, global_batch_size: int) -> range:
        """Global sample indices of this rank at `step` of an epoch: rank, rank + world_size, … within the batch."""
        self.local_batch_size(global_batch_size)
        first = step * global_batch_size
        return range(first + self.rank, first + global_batch_size, self.world_size)


def positions(sampling: SamplingConfig, shard: Shard, epoch: int, step: int) -> Iterator[tuple[int, int]]:
    """(epoch, global sample index) of this rank from a position on, epoch after epoch."""
    for current in count(epoch):
        for this_step in range(step if current == epoch else 0, sampling.steps_per_epoch):
            for index in shard.sample_indices(this_step, sampling.global_batch_size):
                yield current, index
