"""What each layer of a network computes and how many parameters it has, counted without computing anything."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import UNetConfig, build_unet


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Forward floating-point operations of a step, and parameters. A backward pass costs twice the forward pass."""

    name: str
    flops: int
    parameters: int


def count_layers(config: UNetConfig, *, patch: tuple[int, ...], batch: int) -> list[LayerCost]:
    """The layers that have parameters, in the order of the forward pass."""
    with torch.device("meta"):
        network = build_unet(config).train()
        image = torch.empty(batch, config.modalities, *patch)
    counter = FlopCounterMode(display=False)
    costs: list[LayerCost] = []
    before: list[int] = []

    def start(*_: object) -> None:
        before.append(counter.get_total_flops())

    def end(module: nn.Module, *_: object) -> None:
        own = sum(parameter.numel() for parameter in module.parameters())
        flops = counter.get_total_flops() - before.pop()
        costs.append(LayerCost(name=names[module], flops=flops, parameters=own))

    names = {module: name for name, module in network.named_modules() if list(module.parameters(recurse=False))}
    for module in names:
        module.register_forward_pre_hook(start)
        module.register_forward_hook(end)
    with counter:
        network(image)
    return costs
