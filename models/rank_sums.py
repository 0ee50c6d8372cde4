"""Sums over data-parallel workers that gradients pass through: batch Dice is then the same for any number of them."""

from typing import Any

import torch
from torch import Tensor, distributed


class _SumOverRanks(torch.autograd.Function):
    """All-reduce forward; backward multiplies by the number of workers, without talking.

    Every worker computes the same loss from the same sums, so the gradient with regard to the sums is the same
    everywhere, and the sum of the workers' gradients is world size times one's own. DDP's averaging takes the factor
    out again.
    """

    @staticmethod
    def forward(context: Any, sums: Tensor) -> Tensor:
        total = sums.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * distributed.get_world_size()


def sum_over_ranks(sums: Tensor) -> Tensor:
    """Sum a tensor over the default process group; the tensor itself without one or with a single worker.

    Collective: every worker must call it equally often.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return sums
    return _SumOverRanks.apply(sums)
