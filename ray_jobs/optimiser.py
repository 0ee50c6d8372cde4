"""Optimiser and learning-rate schedule."""

import dataclasses
from typing import Any, Literal

import torch
from torch import nn

from storage import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """How weights follow gradients."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw, adam, or sgd with Nesterov momentum 0.99 (nnU-Net's)."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    schedule: Literal["poly", "plateau"] = "poly"
    """poly: falls to zero as (1 - step / steps) ** 0.9 (nnU-Net's). plateau: a tenth whenever the validation IoU
    has not risen for ten validations (ReduceLROnPlateau), without warm-up."""
    weight_decay: float = 1e-5
    clip_norm: float | None = 12.0
    """Gradients are scaled down to this norm; 12 is nnU-Net's."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises from zero."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 10:
            raise InputError(f"--optimiser.learning-rate must lie between 0 and 10, got {self.learning_rate}")
        if self.schedule == "plateau" and self.warmup_steps:
            raise InputError("--optimiser.schedule plateau has no warm-up: give --optimiser.warmup-steps 0")


def build_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of `model`'s parameters."""
    parameters, rate, decay = model.parameters(), config.learning_rate, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.99, nesterov=True, weight_decay=decay)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, rate, weight_decay=decay)


class Schedule:
    """The learning rate of `optimiser` over a run of `total_steps` steps."""

    def __init__(self, config: OptimiserConfig, optimiser: torch.optim.Optimizer, total_steps: int) -> None:
        self._optimiser = optimiser
        self._by_step: torch.optim.lr_scheduler.LambdaLR | None = None
        self._by_score: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None

        def factor(step: int) -> float:
            warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
            return warmup * (1 - min(step, total_steps - 1) / total_steps) ** 0.9

        if config.schedule == "poly":
            self._by_step = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
        else:
            self._by_score = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.1, patience=10)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._optimiser.param_groups[0]["lr"])

    def after_step(self) -> None:
        """Move on by one optimiser step."""
        if self._by_step is not None:
            self._by_step.step()

    def after_validation(self, mean_iou: float) -> None:
        """Take note of a validation's mean IoU."""
        if self._by_score is not None:
            self._by_score.step(mean_iou)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for an exact resume."""
        part = self._by_step or self._by_score
        assert part is not None
        return {name: value for name, value in part.state_dict().items() if name != "lr_lambdas"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        if self._by_step is not None:
            self._by_step.load_state_dict({**state, "lr_lambdas": [None]})
        elif self._by_score is not None:
            self._by_score.load_state_dict(state)
