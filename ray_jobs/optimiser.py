"""Optimiser and learning-rate schedule."""

import dataclasses
from typing import Literal

import torch
from torch import nn

from storage import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """How weights follow gradients."""

    name: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with Nesterov momentum 0.99 (nnU-Net's)."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up; it then falls to zero as (1 - step / steps) ** 0.9."""
    weight_decay: float = 1e-5
    clip_norm: float = 12.0
    """Gradients are scaled down to this norm; 12 is nnU-Net's."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises from zero."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 10:
            raise InputError(f"--optimiser.learning-rate must lie between 0 and 10, got {self.learning_rate}")


def build_optimiser(
    config: OptimiserConfig, model: nn.Module, total_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Return the optimiser of `model`'s parameters and its schedule: linear warm-up, then polynomial decay.

    The decay is nnU-Net's (Isensee et al. 2021, Nature Methods 18).
    """
    optimiser: torch.optim.Optimizer
    if config.name == "sgd":
        optimiser = torch.optim.SGD(
            model.parameters(), config.learning_rate, momentum=0.99, nesterov=True, weight_decay=config.weight_decay
        )
    else:
        optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)

    def factor(step: int) -> float:
        warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
        return warmup * (1 - min(step, total_steps - 1) / total_steps) ** 0.9

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
