"""Networks and losses as a user may have them: imported by name, never by our code."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CALLED: list[str] = []


class Plain(nn.Module):
    """Batch normalisation and dropout."""

    def __init__(self, in_channels: int, out_channels: int, *, width: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv3d(in_channels, width, 3, padding=1)
        self.norm = nn.BatchNorm3d(width)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv3d(width, out_channels, 1)

    def features(self, image: Tensor) -> Tensor:
        return self.dropout(torch.relu(self.norm(self.first(image))))

    def forward(self, image: Tensor) -> Any:
        return self.last(self.features(image))


class Idle(nn.Module):
    """A convolution, and a weight that no gradient reaches."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.only = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.idle = nn.Parameter(torch.zeros(2))

    def forward(self, image: Tensor) -> Tensor:
        return self.only(image)


class Deep(Plain):
    """In training it answers with more, the coarsest first."""

    def forward(self, image: Tensor) -> Any:
        logits = super().forward(image)
        return [functional.avg_pool3d(logits, 2), logits] if self.training else logits


class Stacked(Plain):
    """In training it answers with one tensor of all, as MONAI's DynUNet."""

    def forward(self, image: Tensor) -> Any:
        logits = super().forward(image)
        return torch.stack((logits, 2 * logits), dim=1) if self.training else logits


class Halving(Plain):
    """It takes even sides, and answers at half of them."""

    def forward(self, image: Tensor) -> Any:
        if any(side % 2 for side in image.shape[2:]):
            raise RuntimeError("odd sides")
        return functional.avg_pool3d(super().forward(image), 2)


class Even(Plain):
    """It takes multiples of 16."""

    def forward(self, image: Tensor) -> Any:
        if any(side % 16 for side in image.shape[2:]):
            raise RuntimeError("wanted multiples of 16\nand no others")
        return super().forward(image)


class Fixed(Plain):
    """It takes patches of 40."""

    def forward(self, image: Tensor) -> Any:
        if set(image.shape[2:]) != {40}:
            raise RuntimeError("wanted 40")
        return super().forward(image)


class Named(Plain):
    """It answers with names."""

    def forward(self, image: Tensor) -> Any:
        return {"out": super().forward(image)}


class LooksAtValues(Plain):
    """Which nothing without values can follow."""

    def forward(self, image: Tensor) -> Any:
        return super().forward(image) * (2.0 if image.mean().item() > 1 else 1.0)


class Otherwise(Plain):
    """It calls scans and regions otherwise."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, classes)


def annotated(out_channels: int) -> Plain:
    return Plain(4, out_channels)


def silent(out_channels: int):  # type: ignore[no-untyped-def]
    CALLED.append("silent")
    return Plain(4, out_channels)


def squares(logits: Tensor, regions: Tensor, weight: float = 1.0) -> Tensor:
    return weight * (torch.sigmoid(logits) - regions).square().mean()


class Squares(nn.Module):
    """The same as a class, with a buffer."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, logits: Tensor, regions: Tensor) -> Tensor:
        return squares(logits, regions) * self.weight


class Trained(Squares):
    """With a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


def each(logits: Tensor, regions: Tensor) -> Tensor:
    return (logits - regions).square()


def flat(logits: Tensor, regions: Tensor) -> Tensor:
    return squares(logits.detach(), regions)
