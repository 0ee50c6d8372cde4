"""Instance normalisation and leaky ReLU in one, for channels_last features on a GPU: kernels in Triton.

Convolutions in 16 bits want their features channels_last there, and torch's instance normalisation copies such features
into the default order and back. Here they are read twice and written once, in the backward pass read four times and
written once: with these, a step of `nnunet` took 0.41 of its time on an H200 (docs/gpu.md). Sums are taken in float32,
about the first voxel's value, and joined in a fixed order: the same features give the same bits.

Import it only where Triton is, through `device_setup.fuses_norms`.

Letters in names: B samples, C features, N voxels of a sample, S shares of them, one for each program.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.instance_norm import FORMATS

PROGRAMS = 1056  # of a kernel, about: eight for each multiprocessor of an H200
TILE = 4096  # features that a program works on at a time
WIDEST = 64  # features of a voxel among them


class NormActivation(torch.autograd.Function):
    """apply(features_BC…, weight_C, bias_C, eps, slope): channels_last in, channels_last out, of the features' type.

    Leaky ReLU of `slope` follows; with 1 nothing does.
    """

    @staticmethod
    def forward(context: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
        grid, sizes = share_out(features)
        parts_BS2C = features.new_empty((len(features), grid[0], 2, features.shape[1]), dtype=torch.float32)
        moments_B2C = parts_BS2C.new_empty((len(features), 2, features.shape[1]))
        output = torch.empty_like(features)
        _moments_of_shares[grid](features, parts_BS2C, **sizes)
        _join_moments[grid[1:]](parts_BS2C, moments_B2C, eps, grid[0], **sizes)
        _normalise[grid](features, output, moments_B2C, weight, bias, slope, **sizes)
        context.save_for_backward(features, weight, bias, moments_B2C)
        context.slope = slope
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        features, weight, bias, moments_B2C = context.saved_tensors
        direction = direction.contiguous(memory_format=FORMATS[features.ndim])
        grid, sizes = share_out(features)
        parts_BS2C = moments_B2C.new_empty((len(features), grid[0], 2, features.shape[1]))
        gradient = torch.empty_like(features)
        known = (moments_B2C, weight, bias, context.slope)
        _sums_of_shares[grid](features, direction, parts_BS2C, *known, **sizes)
        sums_B2C = parts_BS2C.sum(1)
        _gradient[grid](features, direction, gradient, sums_B2C, *known, **sizes)
        bias_C, weight_C = sums_B2C.sum(0)
        return gradient, weight_C, bias_C, None, None


def share_out(features: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The kernels' grid (shares of the voxels, groups of features, samples), and the sizes that all of them take."""
    samples, width = features.shape[:2]
    voxels = features[0, 0].numel()
    block_C = min(WIDEST, triton.next_power_of_2(width))
    block_N = TILE // block_C
    groups = triton.cdiv(width, block_C)
    shares = max(1, min(triton.cdiv(voxels, block_N), PROGRAMS // (samples * groups)))
    share = triton.cdiv(triton.cdiv(voxels, shares), block_N) * block_N
    sizes = {"N": voxels, "C": width, "share": share, "BLOCK_N": block_N, "BLOCK_C": block_C}
    return (triton.cdiv(voxels, share), groups, samples), sizes


def error_on(device: torch.device) -> float:
    """How far the kernels are from torch's float64 for some float16 features: the largest of four relative norms.

    Of features, and of the gradients of features, weight and bias. Raises whatever Triton does where they cannot run.
    """
    draw = torch.Generator().manual_seed(0)
    features, direction = (torch.randn(2, 48, 9, 10, 11, generator=draw).half() for _ in range(2))
    weight, bias = torch.randn(2, 48, generator=draw)
    # It may be asked for in the middle of a prediction.
    with torch.inference_mode(mode=False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        here = [each.to(device, copy=True).requires_grad_() for each in (3 * features + 5, weight, bias)]
        exact = [each.detach().cpu().double().requires_grad_() for each in here]
        last = here[0].contiguous(memory_format=torch.channels_last_3d)
        output = NormActivation.apply(last, *here[1:], 1e-5, 0.01)
        wanted = functional.leaky_relu(functional.instance_norm(exact[0], weight=exact[1], bias=exact[2]), 0.01)
        found = output.detach(), *torch.autograd.grad(output, here, direction.to(device))
        right = wanted.detach(), *torch.autograd.grad(wanted, exact, direction.double())
    errors = [(one.cpu() - other).norm() / other.norm() for one, other in zip(found, right, strict=True)]
    return float(torch.stack(errors).max())  # Python's max would lose NaN


@triton.jit
def _moments_of_shares(features, parts, N, C, share, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):  # type: ignore[no-untyped-def]
    """parts_BS2C: mean, and sum of the squared distances from it, of each share."""
    sample, columns = tl.program_id(2), tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    start = tl.program_id(0) * share
    stop = tl.minimum(start + share, N)
    inside = columns < C
    first = features + sample.to(tl.int64) * N * C
    about = tl.load(first + start.to(tl.int64) * C + columns, mask=inside, other=0.0).to(tl.float32)
    sums = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    for row in range(start, stop, BLOCK_N):
        rows = row + tl.arange(0, BLOCK_N)
        there = (rows < stop)[:, None] & inside[None, :]
        values = tl.load(first + rows.to(tl.int64)[:, None] * C + columns[None, :], mask=there, other=0.0)
        away = tl.where(there, values.to(tl.float32) - about[None, :], 0.0)
        sums += away
        squares += away * away
    count = (stop - start) * 1.0
    total, squared = tl.sum(sums, 0), tl.sum(squares, 0)
    out = parts + (sample * tl.num_programs(0) + tl.program_id(0)) * 2 * C + columns
    tl.store(out, about + total / count, mask=inside)
    tl.store(out + C, squared - total * total / count, mask=inside)


@triton.jit
def _join_moments(parts, moments, eps, S, N, C, share, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr):  # type: ignore[no-untyped-def]
    """moments_B2C: mean and 1 / deviation of a sample, by Chan's rule for two groups, share after share."""
    sample, columns = tl.program_id(1), tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = columns < C
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    seen = 0.0
    for number in range(0, S):
        part = parts + (sample * S + number) * 2 * C + columns
        count = (tl.minimum((number + 1) * share, N) - number * share) * 1.0
        away = tl.load(part, mask=inside, other=0.0) - mean
        squares += tl.load(part + C, mask=inside, other=0.0) + away * away * (seen * count / (seen + count))
        mean += away * (count / (seen + count))
        seen += count
    out = moments + sample * 2 * C + columns
    tl.store(out, mean, mask=inside)
    tl.store(out + C, 1.0 / tl.sqrt(squares / N + eps), mask=inside)


@triton.jit
def _constants(moments, weight, bias, sample, columns, C):  # type: ignore[no-untyped-def]
    """Of these features: mean and 1 / deviation in the sample, weight and bias, float32."""
    inside = columns < C
    mean = tl.load(moments + sample * 2 * C + columns, mask=inside, other=0.0)
    per_deviation = tl.load(moments + (sample * 2 + 1) * C + columns, mask=inside, other=0.0)
    factor = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    return mean, per_deviation, factor, shift


@triton.jit
def _before_activation(  # type: ignore[no-untyped-def]
    features, direction, there, mean, per_deviation, factor, shift, slope
):
    """The normal features at these places, without weight and bias, and the gradient before the activation."""
    values = tl.load(features, mask=there, other=0.0).to(tl.float32)
    gradient = tl.load(direction, mask=there, other=0.0).to(tl.float32)
    normal = (values - mean[None, :]) * per_deviation[None, :]
    return normal, tl.where(normal * factor[None, :] + shift[None, :] > 0, gradient, gradient * slope)


@triton.jit
def _normalise(  # type: ignore[no-untyped-def]
    features, output, moments, weight, bias, slope, N, C, share, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr
):
    sample, columns = tl.program_id(2), tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = columns < C
    mean, per_deviation, factor, shift = _constants(moments, weight, bias, sample, columns, C)
    scale = per_deviation * factor
    shift -= mean * scale
    start = tl.program_id(0) * share
    stop = tl.minimum(start + share, N)
    for row in range(start, stop, BLOCK_N):
        rows = row + tl.arange(0, BLOCK_N)
        there = (rows < stop)[:, None] & inside[None, :]
        place = sample.to(tl.int64) * N * C + rows.to(tl.int64)[:, None] * C + columns[None, :]
        values = tl.load(features + place, mask=there, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
        values = tl.where(values > 0, values, values * slope)
        tl.store(output + place, values.to(output.dtype.element_ty), mask=there)


@triton.jit
def _sums_of_shares(  # type: ignore[no-untyped-def]
    features, direction, parts, moments, weight, bias, slope, N, C, share,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """parts_BS2C: of each share, the gradients of bias and weight."""
    sample, columns = tl.program_id(2), tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = columns < C
    mean, per_deviation, factor, shift = _constants(moments, weight, bias, sample, columns, C)
    sums = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    along = tl.zeros((BLOCK_N, BLOCK_C), tl.float32)
    start = tl.program_id(0) * share
    stop = tl.minimum(start + share, N)
    for row in range(start, stop, BLOCK_N):
        rows = row + tl.arange(0, BLOCK_N)
        there = (rows < stop)[:, None] & inside[None, :]
        place = sample.to(tl.int64) * N * C + rows.to(tl.int64)[:, None] * C + columns[None, :]
        normal, gradient = _before_activation(
            features + place, direction + place, there, mean, per_deviation, factor, shift, slope
        )
        sums += gradient
        along += gradient * normal
    out = parts + (sample * tl.num_programs(0) + tl.program_id(0)) * 2 * C + columns
    tl.store(out, tl.sum(sums, 0), mask=inside)
    tl.store(out + C, tl.sum(along, 0), mask=inside)


@triton.jit
def _gradient(  # type: ignore[no-untyped-def]
    features, direction, gradients, sums, moments, weight, bias, slope, N, C, share,
    BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """gradients: those of the features. sums_B2C: those of bias and weight."""
    sample, columns = tl.program_id(2), tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = columns < C
    mean, per_deviation, factor, shift = _constants(moments, weight, bias, sample, columns, C)
    # What mean and deviation hang on.
    level = tl.load(sums + sample * 2 * C + columns, mask=inside, other=0.0) / N
    slant = tl.load(sums + (sample * 2 + 1) * C + columns, mask=inside, other=0.0) / N
    start = tl.program_id(0) * share
    stop = tl.minimum(start + share, N)
    for row in range(start, stop, BLOCK_N):
        rows = row + tl.arange(0, BLOCK_N)
        there = (rows < stop)[:, None] & inside[None, :]
        place = sample.to(tl.int64) * N * C + rows.to(tl.int64)[:, None] * C + columns[None, :]
        normal, gradient = _before_activation(
            features + place, direction + place, there, mean, per_deviation, factor, shift, slope
        )
        gradient = (factor * per_deviation)[None, :] * (gradient - level[None, :] - normal * slant[None, :])
        tl.store(gradients + place, gradient.to(gradients.dtype.element_ty), mask=there)
