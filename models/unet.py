"""One U-Net for 2-D and 3-D; presets are configurations of it (config.py).

Letters in names: B batch, M modality, R region, C features, D H W voxels z y x (2-D networks have H W only).
"""

from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from models.blocks import Stage, make_head, make_upsampling
from models.config import Execution, UNetConfig
from models.nested import region_logits_from_label_logits

Module = TypeVar("Module", bound=nn.Module)


class UNet(nn.Module):
    """See `build_unet`."""

    def __init__(self, config: UNetConfig, execution: Execution) -> None:
        super().__init__()
        self.config = config
        self.execution = execution
        widths = config.widths
        blocks = config.encoder_blocks or ((1 if config.block == "residual" else 2),) * len(widths)
        # nnU-Net's residual encoder has a plain decoder.
        decoder = replace(config, block="plain") if config.block == "residual" else config
        self.encoder = nn.ModuleList()
        inputs = config.modalities
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            down = None if level == 0 else config.down
            stem_stride = config.stem_stride if level == 0 else None
            self.encoder.append(
                Stage(config, inputs, width, blocks=count, down=down, stem_stride=stem_stride, encoding=True)
            )
            inputs = width
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(len(widths) - 1)):
            width = widths[level]
            if config.up == "transposed":
                self.up.append(make_upsampling(config.dimensions, inputs, width, stride=2))
                inputs = width
            self.decoder.append(Stage(decoder, width + inputs, width, blocks=config.decoder_blocks))
            inputs = width
        # Finest first, like the outputs.
        self.heads = nn.ModuleList(
            make_head(config.dimensions, widths[level], config.outputs, stride=config.stem_stride)
            for level in range(config.deep_supervision + 1)
        )
        if config.block != "pre_norm":  # pytorch-3dunet keeps PyTorch's own initial weights
            self.apply(_initialise_he)
            self.apply(_initialise_residual)
        if config.stem_stride > 1:
            self.heads.apply(_initialise_alike)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return logits_BR…, finest first; more than one only in training with deep supervision.

        image: BMDHW or BMHW, floating point. Raises ValueError naming the sizes that suit the depth.
        """
        config = self.config
        if image.ndim != config.dimensions + 2 or image.shape[1] != config.modalities:
            axes = "B, M, D, H, W" if config.dimensions == 3 else "B, M, H, W"
            raise ValueError(f"wanted an image ({axes}) with {config.modalities} modalities, got {tuple(image.shape)}")
        config.check_sides(image.shape[2:])
        if config.block == "pre_norm":
            # torch 2.13's group normalisation crashes in the backward pass of a channels-last input that needs no
            # gradient, as an image. The first convolution's weights bring the layout in.
            image = image.contiguous()
        elif self.execution.channels_last:
            image = image.contiguous(memory_format=channels_last_format(config.dimensions))
        skips: list[Tensor] = []
        features = image
        for stage in self.encoder:
            features = self._run(stage, features)
            skips.append(features)
        skips.pop()
        outputs: list[Tensor] = []
        supervised = config.deep_supervision if self.training else 0
        for step, stage in enumerate(self.decoder):
            skip = skips.pop()
            if config.up == "transposed":
                features = self.up[step](features)
            else:
                features = functional.interpolate(features, size=skip.shape[2:], mode="nearest")
            features = self._run(stage, torch.cat((skip, features), dim=1))
            level = len(skips)
            if level <= supervised:
                outputs.append(self.heads[level](features))
        outputs.reverse()
        if config.head == "labels" and not self.training:
            outputs = [region_logits_from_label_logits(output, config.region_labels) for output in outputs]
        return tuple(outputs)

    def _run(self, stage: nn.Module, features: Tensor) -> Tensor:
        if self.execution.activation_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(stage, features, use_reentrant=False)
        return stage(features)


def build_unet(config: UNetConfig, execution: Execution | None = None) -> UNet:
    """Build a U-Net on the CPU; its initial weights follow torch's random state.

    forward(image_BM…) -> tuple of logits_BR…, finest first. Parameter names carry no wrapper's prefix whatever
    `execution` says; what it leaves open is left out (see `settle_execution`).
    Sources: Ronneberger et al. 2015; Isensee et al. 2021 (nnU-Net), 2024 (residual encoder).
    """
    execution = execution or Execution()
    return as_executed(UNet(config, execution), execution, config.dimensions)


def as_executed(network: Module, execution: Execution, dimensions: int) -> Module:
    """The network, laid out and compiled as `execution` says."""
    if execution.channels_last:
        # torch's own annotations miss this overload.
        network = network.to(memory_format=channels_last_format(dimensions))  # type: ignore[call-overload]
    if execution.compile:
        network.compile()
    return network


def channels_last_format(dimensions: int) -> torch.memory_format:
    """The memory format with the features innermost, for 2-D or 3-D."""
    return torch.channels_last_3d if dimensions == 3 else torch.channels_last


def _initialise_he(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _initialise_residual(module: nn.Module) -> None:
    # A residual block begins as the identity, as in nnU-Net's residual encoder.
    last = getattr(module, "last_norm", None)
    if isinstance(last, nn.GroupNorm) and last.weight is not None:
        nn.init.zeros_(last.weight)


@torch.no_grad()
def _initialise_alike(module: nn.Module) -> None:
    # The voxels that one feature stands for begin alike (ICNR, Aitken et al. 2017): together they train it as a plain
    # head would, and much faster than if each began on its own.
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        voxels = module.weight.flatten(2)
        voxels.copy_(voxels[..., :1].clone())
