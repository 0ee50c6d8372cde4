"""A trained network for other programs: float32, PyTorch's default memory layout, no kernel of ours.

Letters in names: B batch, M scan, R region, D H W voxels z y x.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models import Execution, UNetConfig, build_unet
from ray_jobs.checkpoints.checkpoint import Checkpoint
from ray_jobs.checkpoints.lookup import read_config


class FinestLogits(nn.Module):
    """A network's finest output alone: image_BM… in, logits_BR… out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image)[0]
        return logits


def open_plain(checkpoint: Checkpoint) -> FinestLogits:
    """Build the network of a checkpoint with its weights, for inference."""
    network = build_unet(read_config(checkpoint).model, Execution(channels_last=False))
    checkpoint.load_weights(network)
    return FinestLogits(network).eval()


def sample_image(config: UNetConfig) -> Tensor:
    """A small image_BM… of two samples that suits the network, with sides that differ."""
    sides = config.round_up_sides([config.smallest_side * (2 + axis) for axis in range(config.dimensions)])
    return torch.zeros(2, config.modalities, *sides)


@contextmanager
def without_torchs_warnings() -> Iterator[None]:
    """Leave out what torch 2.13 says of its own ways of exporting, and of sides that are checked while it traces."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", kind)
        yield
