"""Convolutions of channels_last features on CPUs that are computed in another way than torch and oneDNN would.

Each is the same sum of the same products. Letters in names: I features in, O out, W width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.instance_norm import lies_channels_last

LANES = 16  # features in a block of oneDNN's 16-bit kernels: fewer are filled up with zeros
# Tap of a kernel of three that leads from each of two input voxels to each of two output voxels, for the pair of input
# voxels before, here and after; 3: none does.
TAPS = (((3, 1, 3), (0, 2, 3)), ((3, 0, 2), (3, 1, 3)))


def is_special(features: Tensor) -> bool:
    """Whether these features are computed here: on a CPU, innermost in memory, and not by compiled code."""
    return features.device.type == "cpu" and not torch.compiler.is_compiling() and lies_channels_last(features)


def upsample(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A transposed convolution whose kernel is its stride, as one matrix product of every voxel's features.

    oneDNN takes two to four times as long, most of it for the gradient of the weights.
    """
    inputs, outputs, *stride = weight.shape
    axes = len(stride)
    matrix = weight.flatten(2).permute(2, 1, 0).reshape(-1, inputs)
    biases = None if bias is None else bias.repeat(len(matrix) // outputs)
    blocks = functional.linear(features.movedim(1, -1), matrix, biases).unflatten(-1, (*stride, outputs))
    order = [0, *(axis for at in range(axes) for axis in (1 + at, 1 + axes + at)), 2 * axes + 1]
    sides = [side * step for side, step in zip(features.shape[2:], stride, strict=True)]
    return blocks.permute(order).reshape(len(features), *sides, outputs).movedim(-1, 1)


def fills_few_lanes(features: Tensor, weight: Tensor) -> bool:
    """Whether so few features leave half of oneDNN's 16-bit lanes empty, and voxels come in pairs."""
    in_16_bits = torch.is_autocast_enabled("cpu") or features.dtype != torch.float32
    return in_16_bits and 2 * max(weight.shape[:2]) <= LANES and features.shape[-1] % 2 == 0


def convolve_pairs(features: Tensor, weight: Tensor) -> Tensor:
    """A 3 x 3 x 3 convolution with padding and without bias, of pairs of voxels along W with twice the features.

    Half of the larger kernel is zeros, but half as many voxels are computed, in lanes that would be empty otherwise.
    """
    pairs = features.movedim(1, -1).unflatten(3, (-1, 2)).flatten(4).movedim(-1, 1)
    taps = torch.tensor(TAPS).flatten()
    spread = functional.pad(weight, (0, 1)).index_select(-1, taps).unflatten(-1, (2, 2, 3))  # … output, input, pair
    outputs, inputs, depth, height, _ = weight.shape
    kernel = spread.permute(4, 0, 5, 1, 2, 3, 6).reshape(2 * outputs, 2 * inputs, depth, height, 3)
    convolved = functional.conv3d(pairs, kernel, padding=1)
    return convolved.movedim(1, -1).unflatten(4, (2, -1)).flatten(3, 4).movedim(-1, 1)
