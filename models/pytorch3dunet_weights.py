"""Checkpoints of pytorch-3dunet's UNet3D and UNet2D, loaded into ours.

Source of the names: pytorch3dunet 1.9.6, unet3d/model.py and buildingblocks.py.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from models.config import Execution, UNetConfig
from models.unet import UNet, build_unet

_BLOCK = re.compile(r"(encoders|decoders)\.(\d+)\.basic_module\.SingleConv([12])\.(groupnorm|conv)\.(weight|bias)")
_FINAL = re.compile(r"final_conv\.(weight|bias)")
_FIRST = "encoders.0.basic_module.SingleConv1.conv.weight"


def unet_from_pytorch3dunet(
    state_dict: Mapping[str, Any], *, norm_groups: int | None = None, execution: Execution | None = None
) -> UNet:
    """Build our U-Net with the weights of a UNet3D or UNet2D in its default layer order ("gcr", DoubleConv).

    state_dict: the network's own, or a whole training checkpoint with it under "model_state_dict"; a UNet2D whose
        kernels are stored as (1, 3, 3) is read as well.
    norm_groups: the network's num_groups, which weights don't tell; None: 8, pytorch-3dunet's default, where that
        divides every normalised width, else 9, as cs231n-3d-segmentation.
    execution: None: PyTorch's default memory layout, as the original runs, for the same logits to the last bits;
        another layout adds in another order, which moves logits by about 1e-5 of their size.
    Raises ValueError for other architectures.
    """
    weights = {
        name.removeprefix("module."): value for name, value in state_dict.get("model_state_dict", state_dict).items()
    }
    unknown = [name for name in weights if not _BLOCK.fullmatch(name) and not _FINAL.fullmatch(name)]
    if unknown or _FIRST not in weights:
        raise ValueError(
            "wanted the state_dict of a pytorch-3dunet UNet3D or UNet2D with layer order 'gcr', nearest upsampling "
            f"and DoubleConv blocks, got names such as {(unknown or list(weights))[:3]}"
        )
    first: Tensor = weights[_FIRST]
    flat_kernels = first.ndim == 5 and first.shape[2] == 1
    if flat_kernels:
        weights = {name: value.squeeze(2) if value.ndim == 5 else value for name, value in weights.items()}
    dimensions: Literal[2, 3] = 3 if first.ndim == 5 and not flat_kernels else 2
    levels = 1 + max(int(match[2]) for match in map(_BLOCK.fullmatch, weights) if match and match[1] == "encoders")
    config = UNetConfig(
        dimensions=dimensions,
        modalities=first.shape[1],
        regions=weights["final_conv.weight"].shape[0],
        widths=tuple(
            weights[f"encoders.{level}.basic_module.SingleConv2.conv.weight"].shape[0] for level in range(levels)
        ),
        block="pre_norm",
        norm_groups=norm_groups or _guess_groups(weights),
        down="max_pool",
        up="nearest",
    )
    network = build_unet(config, execution or Execution(channels_last=False))
    network.load_state_dict({_rename(name): value for name, value in weights.items()})
    return network


def _rename(name: str) -> str:
    block = _BLOCK.fullmatch(name)
    if block is None:
        return name.replace("final_conv", "heads.0")
    path, level, position, layer, kind = block.groups()
    # Below the first level an encoder stage begins with its pooling.
    index = int(position) - 1 + (1 if path == "encoders" and int(level) > 0 else 0)
    return f"{path[:-1]}.{level}.{index}.{'norm' if layer == 'groupnorm' else 'convolution'}.{kind}"


def _guess_groups(weights: Mapping[str, Tensor]) -> int:
    normalised = {value.shape[0] for name, value in weights.items() if name.endswith("groupnorm.weight")}
    for groups in (8, 9):
        if all(width < groups or width % groups == 0 for width in normalised):
            return groups
    raise ValueError(
        f"neither 8 nor 9 groups divide the normalised widths {sorted(normalised)}; "
        "give norm_groups, the num_groups that the network was built with"
    )
