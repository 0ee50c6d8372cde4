"""How long a data-parallel training step takes: arithmetic, gradients, network. A model; docs/scaling.md checks it.

A layer's gradients are there when the backward pass has done that layer, deepest first for the decoder, then up the
encoder. DDP collects them in buckets, and a bucket leaves when it is full and the one before it has gone. What the
network has not done when the backward pass ends is waited for. A ring over N ranks sends 2 (N - 1) / N times the bytes
of a bucket through each node's network, in 2 (N - 1) turns of one latency each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Of an Ethernet frame of 1514 bytes, TCP carries 1448.
TCP_PAYLOAD = 1448 / 1514


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """A layer's time in the forward pass, in seconds, and its parameters. Its backward pass takes twice as long."""

    forward: float
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


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How gradients are sent: DDP's bucket size, the bytes of a gradient, and whether the backward pass hides it."""

    bucket_mb: float = 25.0
    gradient_bytes: int = 4  # 2 when compressed


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds. waits: what of the communication the backward pass does not hide, and the loss's own sums."""

    compute: float
    waits: float
    communication: float

    @property
    def total(self) -> float:
        """Of the whole step."""
        return self.compute + self.waits


def predict_step(
    layers: Sequence[LayerTime], network: Network, sharing: Sharing, *, ranks: int, jitter: float = 0.0
) -> StepTime:
    """A step of `ranks` ranks whose own steps vary by `jitter` (standard deviation, as a share).

    Every rank waits for the slowest: of N normal draws that is about sqrt(2 ln N) deviations above the mean.
    """
    forward = sum(layer.forward for layer in layers)
    slowest = 1 + jitter * math.sqrt(2 * math.log(ranks))
    now, network_free, communication = forward, 0.0, 0.0
    for seconds, parameters in split_into_buckets(layers, sharing):
        now += seconds
        if parameters and ranks > 1:
            took = network.all_reduce(parameters * sharing.gradient_bytes, ranks)
            network_free = max(now, network_free) + took
            communication += took
    loss_sums = network.all_reduce(0, ranks)
    waits = max(0.0, network_free - now) + loss_sums + (slowest - 1) * now
    return StepTime(compute=now, waits=waits, communication=communication + loss_sums)


def split_into_buckets(layers: Sequence[LayerTime], sharing: Sharing) -> list[tuple[float, int]]:
    """(seconds of backward pass until a bucket is full, its parameters), in the order in which they leave.

    DDP counts a bucket's size before compression and closes it with the gradient that fills it.
    """
    full = sharing.bucket_mb * 2**20
    buckets: list[tuple[float, int]] = []
    seconds, parameters = 0.0, 0
    for layer in reversed(layers):
        seconds += 2 * layer.forward
        parameters += layer.parameters
        if 4 * parameters >= full:
            buckets.append((seconds, parameters))
            seconds, parameters = 0.0, 0
    buckets.append((seconds, parameters))
    return buckets
