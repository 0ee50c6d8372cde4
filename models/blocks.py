"""The layers a U-Net level is made of, the same for 2-D and 3-D.

Letters in names: B batch, C features, D H W voxels z y x.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import cpu_convolutions
from models.config import UNetConfig
from models.device_setup import fuses_norms
from models.instance_norm import InstanceNormChannelsLast, lies_channels_last

LEAKY = 0.01  # slope of the leaky ReLU below 0


class Stage(nn.Sequential):
    """One level: features_BC… in, features_BC… out, sides halved where `down` is given, divided by `stem_stride`."""

    def __init__(
        self,
        config: UNetConfig,
        inputs: int,
        width: int,
        *,
        blocks: int,
        down: Literal["strided", "max_pool"] | None = None,
        stem_stride: int | None = None,
        encoding: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        if down == "max_pool":
            layers.append(nn.MaxPool3d(2) if config.dimensions == 3 else nn.MaxPool2d(2))
        stride = stem_stride or (2 if down == "strided" else 1)
        if config.block == "residual" and stem_stride is not None:
            layers.append(PlainBlock(config, inputs, width, stride=stride))
            inputs, stride = width, 1
        make_block = {"plain": PlainBlock, "residual": ResidualBlock, "pre_norm": PreNormBlock}[config.block]
        for index in range(blocks):
            # pytorch-3dunet widens in two steps on the way down.
            halfway = config.block == "pre_norm" and encoding and index < blocks - 1
            output = max(inputs, width // 2) if halfway else width
            layers.append(make_block(config, inputs, output, stride=stride if index == 0 else 1))
            inputs = output
        super().__init__(*layers)


class PlainBlock(nn.Module):
    """Convolution, normalisation, leaky ReLU."""

    def __init__(self, config: UNetConfig, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        self.convolution = make_convolution(config.dimensions, inputs, width, kernel=3, stride=stride)
        self.norm = make_norm(width, config.norm_groups)

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.norm(self.convolution(features), slope=LEAKY))


class PreNormBlock(nn.Module):
    """Normalisation, convolution, ReLU: pytorch-3dunet's layer order "gcr"."""

    def __init__(self, config: UNetConfig, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        self.norm = make_norm(inputs, config.norm_groups)
        self.convolution = make_convolution(config.dimensions, inputs, width, kernel=3, stride=stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(self.convolution(self.norm(features)))


class ResidualBlock(nn.Module):
    """Two convolutions around a skip; the skip is averaged down and projected where the shape changes."""

    def __init__(self, config: UNetConfig, inputs: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        dimensions = config.dimensions
        self.first = PlainBlock(config, inputs, width, stride=stride)
        self.convolution = make_convolution(dimensions, width, width, kernel=3)
        self.last_norm = make_norm(width, config.norm_groups)
        self.activation = nn.LeakyReLU(LEAKY, inplace=True)
        skip: list[nn.Module] = []
        if stride != 1:
            skip.append(nn.AvgPool3d(stride) if dimensions == 3 else nn.AvgPool2d(stride))
        if inputs != width:
            skip.append(make_convolution(dimensions, inputs, width, kernel=1))
            skip.append(make_norm(width, config.norm_groups))
        self.skip = nn.Sequential(*skip)

    def forward(self, features: Tensor) -> Tensor:
        residual = self.last_norm(self.convolution(self.first(features)))
        return self.activation(residual + self.skip(features))


def make_convolution(
    dimensions: int, inputs: int, outputs: int, *, kernel: int, stride: int = 1, bias: bool = False
) -> nn.Conv2d | nn.Conv3d:
    """A convolution that keeps the sides (divided by `stride`). No bias by default: normalisation would cancel it."""
    convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d
    if dimensions == 3 and kernel == 3 and stride == 1 and not bias:
        convolution = NarrowConvolution
    return convolution(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=bias)


class Upsampling(nn.Module):
    """What a transposed convolution whose blocks don't overlap computes, whatever its dimensions."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        if cpu_convolutions.is_special(features):
            return cpu_convolutions.upsample(features, self.weight, self.bias)
        return cast(Tensor, super().forward(features, output_size))


class Upsampling2d(Upsampling, nn.ConvTranspose2d):
    """Of slices."""


class Upsampling3d(Upsampling, nn.ConvTranspose3d):
    """Of volumes."""


class NarrowConvolution(nn.Conv3d):
    """A 3 x 3 x 3 convolution of stride 1 without bias, which may have few features."""

    def forward(self, features: Tensor) -> Tensor:
        if cpu_convolutions.is_special(features) and cpu_convolutions.fills_few_lanes(features, self.weight):
            return cpu_convolutions.convolve_pairs(features, self.weight)
        return super().forward(features)


def make_upsampling(
    dimensions: int, inputs: int, outputs: int, *, stride: int
) -> nn.ConvTranspose2d | nn.ConvTranspose3d:
    """A transposed convolution that multiplies the sides by `stride`; its blocks don't overlap."""
    transposed = Upsampling3d if dimensions == 3 else Upsampling2d
    return transposed(inputs, outputs, kernel_size=stride, stride=stride)


def make_head(dimensions: int, inputs: int, outputs: int, *, stride: int) -> nn.Module:
    """Logits of each voxel from its features alone, or of the stride² or stride³ voxels that the features stand for."""
    if stride == 1:
        return make_convolution(dimensions, inputs, outputs, kernel=1, bias=True)
    return make_upsampling(dimensions, inputs, outputs, stride=stride)


class Norm(nn.GroupNorm):
    """Group normalisation, and leaky ReLU of `slope`; with a group for each feature, instance normalisation.

    On a CPU torch's group normalisation takes either layout, slowly in channels_last, where features that are groups of
    their own have a faster way (instance_norm.py). So they have on a GPU (fused_norm.py); otherwise autocast would run
    group normalisation there in float32 and hand float32 on, at twice the memory traffic, while instance normalisation
    takes 16-bit features with float32 sums and weights.
    """

    def forward(self, features: Tensor, slope: float = 1.0) -> Tensor:
        # Compiled, normalisation and activation are one kernel anyway.
        alone = self.num_groups == self.num_channels and not torch.compiler.is_compiling()
        if alone and features.is_cuda and lies_channels_last(features) and fuses_norms(features.device):
            return self.forward_fused(features, slope)
        if features.is_cuda:
            return self.forward_on_gpu(features, slope)
        if alone and lies_channels_last(features):
            normal = cast(Tensor, InstanceNormChannelsLast.apply(features, self.weight, self.bias, self.eps))
        else:
            normal = super().forward(features)
        return leaky_relu(normal, slope)

    def forward_fused(self, features: Tensor, slope: float) -> Tensor:
        """What `forward` does with channels_last features where Triton's kernels work."""
        from models.fused_norm import NormActivation

        return cast(Tensor, NormActivation.apply(features, self.weight, self.bias, self.eps, slope))

    def forward_on_gpu(self, features: Tensor, slope: float = 1.0) -> Tensor:
        """What `forward` does where the features lie on a GPU and those do not; memory.py counts it elsewhere."""
        if self.num_groups == self.num_channels:
            normal = functional.instance_norm(features, weight=self.weight, bias=self.bias, eps=self.eps)
        else:
            with torch.autocast("cuda", enabled=False):
                weight, bias = self.weight.to(features.dtype), self.bias.to(features.dtype)
                normal = functional.group_norm(features, self.num_groups, weight, bias, self.eps)
        return leaky_relu(normal, slope)


def leaky_relu(features: Tensor, slope: float) -> Tensor:
    """In place; with 1 as they are."""
    return features if slope == 1 else functional.leaky_relu(features, slope, inplace=True)


def make_norm(width: int, groups: int | None) -> Norm:
    """Group normalisation; `groups=None` gives instance normalisation, which is one group per feature."""
    if groups is None:
        groups = width
    elif width < groups:
        groups = 1  # as pytorch-3dunet does for its first layer, whose four modalities are fewer than its groups
    if width % groups:
        raise ValueError(f"group normalisation: {width} features don't divide into {groups} groups")
    return Norm(groups, width)
