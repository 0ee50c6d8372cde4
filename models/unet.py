"""One U-Net for 2-D and 3-D; presets are configurations of it (presets.py).

Letters in names: B batch, M modality, R region, C features, D H W voxels z y x (2-D networks have H W only).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from models.blocks import BlockConfig, Stage, make_head, make_upsampling
from models.nested import region_logits_from_label_logits
from models.precision import Precision


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """What the network is. Saved with every checkpoint; how it is run (memory layout, compilation) is `Execution`.

    Raises ValueError on combinations that describe no network.
    """

    dimensions: Literal[2, 3] = 3
    """3: image BMDHW; 2: image BMHW."""
    modalities: int = 4
    """Scans of a case: the network's input."""
    regions: int = 3
    """Regions WT, TC, ET: the network's outputs."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    """Features of each level, finest first; every level halves the sides."""
    encoder_blocks: tuple[int, ...] | None = None
    """Blocks in each encoder level; None: two convolutions, or one residual block, everywhere."""
    decoder_blocks: int = 2
    """Convolutions in each decoder level."""
    block: Literal["plain", "residual", "pre_norm"] = "plain"
    """plain: convolution, normalisation, leaky ReLU (nnU-Net). residual: two of those around a skip, plain in the
    decoder (nnU-Net's residual encoder). pre_norm: normalisation, convolution, ReLU (pytorch-3dunet's "gcr")."""
    norm_groups: int | None = None
    """Groups of the group normalisation; None: one per feature, which is instance normalisation."""
    down: Literal["strided", "max_pool"] = "strided"
    """strided: a level's first convolution halves the sides (nnU-Net). max_pool: a pooling before it does."""
    up: Literal["transposed", "nearest"] = "transposed"
    """transposed: a transposed convolution doubles the sides (nnU-Net). nearest: each voxel is repeated."""
    stem_stride: Literal[1, 2] = 1
    """2: the first convolution halves the sides, and each output's transposed convolution doubles them again. A patch
    then costs an eighth (3-D) or a quarter (2-D): more context is seen for the same work, less of the finest detail."""
    deep_supervision: int = 0
    """Extra outputs in training, each at half the sides of the one before."""
    head: Literal["regions", "labels"] = "regions"
    """regions: each output is one region's logit. labels: the outputs are log-odds of nested, mutually exclusive
    labels against the background, for cross-entropy; outside training they are turned into region logits."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if levels < 2 or min(self.widths) < 1:
            raise ValueError(f"UNetConfig.widths: wanted two or more positive widths, got {self.widths}")
        if self.dimensions not in (2, 3):
            raise ValueError(f"UNetConfig.dimensions: wanted 2 or 3, got {self.dimensions}")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"UNetConfig.stem_stride: wanted 1 or 2, got {self.stem_stride}")
        if self.encoder_blocks is not None and len(self.encoder_blocks) != levels:
            raise ValueError(
                f"UNetConfig.encoder_blocks: wanted {levels} numbers, one for each width, got {self.encoder_blocks}"
            )
        if not 0 <= self.deep_supervision <= levels - 2:
            raise ValueError(
                f"UNetConfig.deep_supervision: {levels} levels allow 0 to {levels - 2} extra outputs, "
                f"got {self.deep_supervision}"
            )
        if self.up == "transposed" and self.down == "max_pool":
            raise ValueError("UNetConfig: transposed convolutions need down='strided'; max_pool goes with up='nearest'")

    @property
    def side_multiples(self) -> tuple[int, ...]:
        """By what each side of a patch must divide, one number an axis; 1 where the decoder fits any side."""
        fits_any = self.up == "nearest" and self.down == "max_pool"
        multiple = self.stem_stride if fits_any else self.smallest_side
        return (multiple,) * self.dimensions

    @property
    def smallest_side(self) -> int:
        """The shortest side that leaves one voxel on the coarsest level."""
        return self.stem_stride * 2 ** (len(self.widths) - 1)

    def round_up_sides(self, sides: Sequence[int]) -> tuple[int, ...]:
        """The smallest sides, none below `sides`, that a padded image must have to suit the depth."""
        return tuple(
            max(-(-side // multiple) * multiple, self.smallest_side)
            for side, multiple in zip(sides, self.side_multiples, strict=True)
        )

    def check_sides(self, sides: Sequence[int]) -> None:
        """Raise ValueError, naming the nearest sizes that do, unless a patch of `sides` suits the depth."""
        if len(sides) != self.dimensions:
            raise ValueError(f"a {self.dimensions}-D U-Net wants {self.dimensions} sides, got {tuple(sides)}")
        smallest = self.smallest_side
        fitting: list[str] = []
        for side, multiple in zip(sides, self.side_multiples, strict=True):
            if side < smallest:
                fitting.append(str(smallest))
            elif side % multiple:
                below = side // multiple * multiple
                fitting.append(f"{below} or {below + multiple}")
            else:
                fitting.append(str(side))
        if any(text != str(side) for text, side in zip(fitting, sides, strict=True)):
            rule = f"multiples of {self.side_multiples[0]}" if self.side_multiples[0] > 1 else f"{smallest} or more"
            raise ValueError(
                f"patch sides {tuple(sides)} don't suit a U-Net of {len(self.widths)} levels, which wants {rule}: "
                f"take {' x '.join(fitting)}, or pad the image"
            )
        if self.norm_groups is None and max(sides) < 2 * smallest:
            raise ValueError(
                f"patch sides {tuple(sides)} leave one voxel on the coarsest of {len(self.widths)} levels, which "
                f"instance normalisation turns into 0: take {2 * smallest} along one axis at least, or pad the image"
            )


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a network is run; none of it changes weights, names or (but for rounding) results."""

    channels_last: bool | None = None
    """Features innermost in memory (channels_last, channels_last_3d). Default: yes, but for bfloat16 on CPUs."""
    compile: bool = False
    """torch.compile, in place, so that the state_dict keeps its plain names. Needs a C++ compiler (CPU) or Triton."""
    activation_checkpointing: bool = False
    """Recompute each level in the backward pass instead of keeping its activations."""

    def settled(self, device: torch.device, precision: Precision) -> Self:
        """Return this with what depends on device and precision decided.

        channels_last makes float32 on CPUs 1.3 to 1.7 times faster, and bfloat16 on a CPU with AMX 2.9 times slower
        (BENCHMARKS.md, docs/models.md); on GPUs it is what their 16-bit convolutions want.
        """
        if self.channels_last is not None:
            return self
        return replace(self, channels_last=device.type != "cpu" or precision.dtype is None)


class UNet(nn.Module):
    """See `build_unet`."""

    def __init__(self, config: UNetConfig, execution: Execution) -> None:
        super().__init__()
        self.config = config
        self.execution = execution
        widths = config.widths
        blocks = config.encoder_blocks or ((1 if config.block == "residual" else 2),) * len(widths)
        encoder = BlockConfig(dimensions=config.dimensions, kind=config.block, norm_groups=config.norm_groups)
        # nnU-Net's residual encoder has a plain decoder.
        decoder = BlockConfig(
            dimensions=config.dimensions,
            kind="plain" if config.block == "residual" else config.block,
            norm_groups=config.norm_groups,
        )
        self.encoder = nn.ModuleList()
        inputs = config.modalities
        for level, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            down = None if level == 0 else config.down
            stem_stride = config.stem_stride if level == 0 else None
            self.encoder.append(
                Stage(encoder, inputs, width, blocks=count, down=down, stem_stride=stem_stride, encoding=True)
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
            make_head(config.dimensions, widths[level], config.regions, stride=config.stem_stride)
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
            outputs = [region_logits_from_label_logits(output) for output in outputs]
        return tuple(outputs)

    def _run(self, stage: nn.Module, features: Tensor) -> Tensor:
        if self.execution.activation_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(stage, features, use_reentrant=False)
        return stage(features)


def build_unet(config: UNetConfig, execution: Execution | None = None) -> UNet:
    """Build a U-Net on the CPU; its initial weights follow torch's random state.

    forward(image_BM…) -> tuple of logits_BR…, finest first. Parameter names carry no wrapper's prefix whatever
    `execution` says; what it leaves open is left out (see `Execution.settled`).
    Sources: Ronneberger et al. 2015; Isensee et al. 2021 (nnU-Net), 2024 (residual encoder).
    """
    execution = execution or Execution()
    network = UNet(config, execution)
    if execution.channels_last:
        # torch's own annotations miss this overload.
        network = network.to(memory_format=channels_last_format(config.dimensions))  # type: ignore[call-overload]
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
