"""The weights of nnU-Net v2's U-Nets and of ours: one table of names, read in both directions.

Of the convolutions that a normalisation follows the biases are left out: it takes the mean away again.
Source of the names: dynamic_network_architectures 0.4, building_blocks.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models import UNetConfig


def pair_names(config: UNetConfig) -> dict[str, str]:
    """Our name of each of their weights, whose network is the same; biases before a normalisation are not in it."""
    pairs: dict[str, str] = {}

    def add_block(theirs: str, ours: str, convolution: str = "convolution", norm: str = "norm") -> None:
        pairs[f"{theirs}.conv.weight"] = f"{ours}.{convolution}.weight"
        pairs.update({f"{theirs}.norm.{kind}": f"{ours}.{norm}.{kind}" for kind in ("weight", "bias")})

    residual, widths = config.block == "residual", config.widths
    blocks = config.encoder_blocks or ((1 if residual else 2),) * len(widths)
    if residual:
        add_block("encoder.stem.convs.0", "encoder.0.0")
    for level, count in enumerate(blocks):
        for index in range(count):
            if not residual:
                add_block(f"encoder.stages.{level}.0.convs.{index}", f"encoder.{level}.{index}")
                continue
            theirs, ours = f"encoder.stages.{level}.blocks.{index}", f"encoder.{level}.{index + (level == 0)}"
            add_block(f"{theirs}.conv1", f"{ours}.first")
            add_block(f"{theirs}.conv2", ours, norm="last_norm")
            if level > 0 and index == 0 and widths[level - 1] != widths[level]:  # behind the pooling
                add_block(f"{theirs}.skip.1", f"{ours}.skip", "1", "2")
    for step in range(len(widths) - 1):
        for index in range(config.decoder_blocks):
            add_block(f"decoder.stages.{step}.convs.{index}", f"decoder.{step}.{index}")
        for kind in ("weight", "bias"):
            pairs[f"decoder.transpconvs.{step}.{kind}"] = f"up.{step}.{kind}"
            pairs[f"decoder.seg_layers.{step}.{kind}"] = f"heads.{len(widths) - 2 - step}.{kind}"
    return pairs


def from_theirs(theirs: Mapping[str, Tensor], config: UNetConfig, outputs: Sequence[int]) -> dict[str, Tensor]:
    """Their state_dict as ours. Names that are unknown stay as they are, for ours to refuse.

    outputs: for each of our regions the number of their output.
    """
    pairs = pair_names(config)
    ours: dict[str, Tensor] = {}
    for full, value in theirs.items():
        name = full.removeprefix("module.").removeprefix("_orig_mod.")
        again = name.startswith("decoder.encoder.") or ".all_modules." in name
        if not again and not name.endswith(".conv.bias"):
            ours[pairs.get(name, name)] = value[list(outputs)] if "seg_layers" in name else value
    for step, width in enumerate(config.widths[-2::-1]):
        _turn_inputs(ours, f"decoder.{step}.0.convolution.weight", width)
        if f"up.{step}.weight" in ours:
            ours.setdefault(f"up.{step}.bias", torch.zeros(width))
    return ours


def to_theirs(ours: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """The inverse, with all that they have twice, and zeros for the biases and the outputs that ours does without."""
    turned = {name: value.detach().clone().contiguous() for name, value in ours.items()}
    for step, width in enumerate(config.widths[-2::-1]):
        weight = f"decoder.{step}.0.convolution.weight"
        _turn_inputs(turned, weight, turned[weight].shape[1] - width)
    theirs: dict[str, Tensor] = {}
    for name, own in pair_names(config).items():
        if own in turned:
            theirs[name] = turned[own]
        else:  # an output that only training has
            like = (config.regions, config.widths[int(own.split(".")[1])], 1, 1, 1)
            theirs[name] = torch.zeros(like if name.endswith("weight") else like[:1])
        if name.endswith(".conv.weight") and ".skip." not in name:
            theirs[name.removesuffix("weight") + "bias"] = torch.zeros(len(theirs[name]))
    for name, value in list(theirs.items()):
        for place, layer in enumerate(("conv", "norm")):
            if f".{layer}." in name:
                theirs[name.replace(f".{layer}.", f".all_modules.{place}.")] = value
    return theirs | {f"decoder.{name}": value for name, value in theirs.items() if name.startswith("encoder.")}


def _turn_inputs(weights: dict[str, Tensor], name: str, width: int) -> None:
    """Theirs has what comes from below first, ours the skip: put the inputs from `width` on before the others."""
    if name in weights:
        weights[name] = torch.cat((weights[name][:, width:], weights[name][:, :width]), dim=1)
