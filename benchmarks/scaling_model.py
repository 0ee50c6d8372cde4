"""How long a data-parallel training step takes: arithmetic, gradients, network. A model; docs/scaling.md describes it.

A layer's gradients are there when the backward pass has done that layer, deepest first for the decoder, then up the
encoder. DDP collects them in buckets, and a bucket leaves when it is full and the one before it has gone. What the
network has not done when the backward pass ends is waited for. A ring over N ranks sends 2 (N - 1) / N times the bytes
of a bucket through each node's network, in 2 (N - 1) turns of one latency each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import UNetConfig, build_unet

# Of an Ethernet frame of 1514 bytes, TCP carries 1448.
TCP_PAYLOAD = 1448 / 1514
BUCKET_MB = 25.0  # DDP's own, and --parallel.bucket-mb


@dataclass(frozen=True, kw_only=True)
class Layer:
    """cost: of its forward pass, in operations or in seconds; its backward pass costs twice as much."""

    cost: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """gbit: what a node can send, and at the same time receive. latency: seconds of one turn of a ring."""

    gbit: float
    latency: float

    def all_reduce(self, sent: float, ranks: int) -> float:
        """Seconds to sum `sent` bytes over the ranks of a ring."""
        if ranks == 1:
            return 0.0
        bandwidth = self.gbit * 1e9 / 8 * TCP_PAYLOAD
        return 2 * (ranks - 1) / ranks * sent / bandwidth + 2 * (ranks - 1) * self.latency


def count_layers(config: UNetConfig, *, patch: tuple[int, ...], batch: int) -> list[Layer]:
    """The layers that have parameters in the order of the forward pass, their operations counted, none computed."""
    with torch.device("meta"):
        network = build_unet(config).train()
        image = torch.empty(batch, config.modalities, *patch)
    counter = FlopCounterMode(display=False)
    layers: list[Layer] = []
    before: list[int] = []

    def start(*_: object) -> None:
        before.append(counter.get_total_flops())

    def end(module: nn.Module, *_: object) -> None:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        layers.append(Layer(cost=counter.get_total_flops() - before.pop(), parameters=parameters))

    for module in network.modules():
        if list(module.parameters(recurse=False)):
            module.register_forward_pre_hook(start)
            module.register_forward_hook(end)
    with counter:
        network(image)
    return layers


def predict_step(
    layers: Sequence[Layer],
    network: Network,
    *,
    ranks: int,
    gradient_bytes: int = 4,
    bucket_mb: float = BUCKET_MB,
    jitter: float = 0.0,
) -> float:
    """Seconds of a step of `ranks` ranks whose own steps vary by `jitter` (standard deviation, as a share).

    Layers cost seconds here. Every rank waits for the slowest: of N normal draws that is about sqrt(2 ln N) deviations
    above the mean.
    """
    now, network_free = sum(layer.cost for layer in layers), 0.0
    for seconds, parameters in split_into_buckets(layers, bucket_mb):
        now += seconds
        if parameters:
            network_free = max(now, network_free) + network.all_reduce(parameters * gradient_bytes, ranks)
    loss_sums = network.all_reduce(0, ranks)
    lead = jitter * math.sqrt(2 * math.log(ranks)) * now
    return max(now, network_free) + loss_sums + lead


def split_into_buckets(layers: Sequence[Layer], bucket_mb: float) -> list[tuple[float, int]]:
    """(seconds of backward pass until a bucket is full, its parameters), in the order in which they leave.

    DDP counts a bucket's size before compression and closes it with the gradient that fills it.
    """
    buckets: list[tuple[float, int]] = []
    seconds, parameters = 0.0, 0
    for layer in reversed(layers):
        seconds += 2 * layer.cost
        parameters += layer.parameters
        if 4 * parameters >= bucket_mb * 2**20:
            buckets.append((seconds, parameters))
            seconds, parameters = 0.0, 0
    buckets.append((seconds, parameters))
    return buckets
