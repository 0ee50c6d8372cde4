"""Instance normalisation of features that lie channels_last on a CPU, where torch's own is 5 to 30 times slower.

torch 2.13 walks such features voxel by voxel in the backward pass of its group normalisation. Its batch normalisation
knows the layout, and of one sample at a time it is the same thing, but it adds up one voxel's features at a time, which
fill no vector register where they are few. So some voxels are taken for one with more features, and their sums joined.
It also adds up all voxels in one float32, which loses what is small beside the sum: of two million voxels the variance
was off by 6e-4 of itself, of parts of 4096, joined in the end, by 2e-7, and takes no longer.

Letters in names: B samples, C features, P voxels taken for one, N those that are left, S parts of these.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

aten = torch.ops.aten
AS_CONSTANTS = False  # mean and variance are given, not taken of what comes
WIDE = 64  # features that a row has at most where voxels are joined
ROWS_A_PART = 4096  # that are added up in one float32


class InstanceNormChannelsLast(torch.autograd.Function):
    """apply(features_BC…, weight_C, bias_C, eps): channels_last in, channels_last out; sums are taken in float32."""

    @staticmethod
    def forward(context: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        rows_BNX, joined = as_rows(features)
        # Given only so that the statistics come in float32; momentum 0 leaves them alone.
        unused = weight.new_zeros(rows_BNX.shape[-1])
        with one_thread():  # else sums would hang on how many there are, and so would every prediction
            parts_BS = [
                [aten.batch_norm_update_stats(part, unused, unused, 0.0) for part in rows.split(ROWS_A_PART)]
                for rows in rows_BNX
            ]
        means_BSPC, variances_BSPC = stack_parts(parts_BS, (0, 1), joined)
        rows_S = torch.tensor([len(part) for part in rows_BNX[0].split(ROWS_A_PART)], dtype=means_BSPC.dtype)
        share_S11 = (rows_S / (joined * rows_S.sum()))[:, None, None]
        mean_BC = (share_S11 * means_BSPC).sum((1, 2))
        off_BSPC = means_BSPC - mean_BC[:, None, None]
        variance_BC = (share_S11 * (variances_BSPC + off_BSPC.square_())).sum((1, 2))
        output = torch.empty_like(features)
        transform(rows_BNX, weight.expand_as(mean_BC), bias.expand_as(mean_BC), mean_BC, variance_BC, eps, into=output)
        context.save_for_backward(features, weight, mean_BC, variance_BC)
        context.eps = eps
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        features, weight, mean_BC, variance_BC = context.saved_tensors
        eps = context.eps
        rows_BNX, joined = as_rows(features)
        along_BNX, _ = as_rows(direction.contiguous(memory_format=FORMATS[features.ndim]))
        weights_BX, means_BX, variances_BX = (
            each_BC.repeat(1, joined) for each_BC in (weight.expand_as(mean_BC), mean_BC, variance_BC)
        )
        # As if mean and variance were constants; what they hang on is a straight line in the features.
        parts_BS = [
            [
                aten.native_batch_norm_backward(*pair, *known, None, None, AS_CONSTANTS, eps, [True] * 3)
                for pair in zip(along.split(ROWS_A_PART), rows.split(ROWS_A_PART), strict=True)
            ]
            for along, rows, *known in zip(along_BNX, rows_BNX, weights_BX, means_BX, variances_BX, strict=True)
        ]
        weights_BC, biases_BC = (each_BSPC.sum((1, 2)) for each_BSPC in stack_parts(parts_BS, (1, 2), joined))
        scale_BC = -weight * torch.rsqrt(variance_BC + eps) / (features[0, 0].numel())
        gradient = torch.empty_like(features)
        transform(rows_BNX, scale_BC * weights_BC, scale_BC * biases_BC, mean_BC, variance_BC, eps, into=gradient)
        for sum_NX, parts in zip(as_rows(gradient)[0], parts_BS, strict=True):
            for sum_part, (along, *_) in zip(sum_NX.split(ROWS_A_PART), parts, strict=True):
                sum_part += along
        return gradient, weights_BC.sum(0), biases_BC.sum(0), None


def stack_parts(parts_BS: Sequence[Sequence[Sequence[Tensor]]], kinds: tuple[int, int], joined: int) -> list[Tensor]:
    """Of the results of each part of each sample, which are of X features, those of two kinds, each as BSPC."""
    return [
        torch.stack([torch.stack([part[kind] for part in parts]) for parts in parts_BS]).unflatten(2, (joined, -1))
        for kind in kinds
    ]


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes with one thread in the body."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def lies_channels_last(features: Tensor) -> bool:
    """Whether the features are innermost in memory, and not as well in the default order."""
    return features.is_contiguous(memory_format=FORMATS[features.ndim]) and not features.is_contiguous()


def as_rows(features: Tensor) -> tuple[Tensor, int]:
    """A view rows_BNX of channels_last features, each row P voxels' features, and P."""
    rows_BNC = features.flatten(2).transpose(1, 2)
    _, voxels, width = rows_BNC.shape
    joined = 1
    while 2 * joined * width <= WIDE and voxels % (2 * joined) == 0:
        joined *= 2
    return rows_BNC.reshape(len(features), voxels // joined, joined * width), joined


def transform(
    rows_BNX: Tensor,
    weight_BC: Tensor,
    bias_BC: Tensor,
    mean_BC: Tensor,
    variance_BC: Tensor,
    eps: float,
    *,
    into: Tensor,
) -> None:
    """Write (rows - mean) / deviation * weight + bias into the channels_last features `into`."""
    joined = rows_BNX.shape[-1] // weight_BC.shape[-1]
    nothing = weight_BC.new_empty(0)
    known = (each_BC.repeat(1, joined) for each_BC in (weight_BC, bias_BC, mean_BC, variance_BC))
    for rows, out, *numbers in zip(rows_BNX, as_rows(into)[0], *known, strict=True):
        given = (*numbers, AS_CONSTANTS, 0.0, eps)
        aten.native_batch_norm.out(rows, *given, out=out, save_mean=nothing, save_invstd=nothing)
