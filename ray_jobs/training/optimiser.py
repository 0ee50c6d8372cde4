"""Optimiser and learning-rate schedule."""

import math
from typing import Any

import torch
from torch import nn

from models.device_setup import fuses_optimiser
from ray_jobs.settings.groups import OptimiserConfig


def build_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of `model`'s parameters, which lie on their device already."""
    parameters, rate, decay = list(model.parameters()), config.learning_rate, config.weight_decay
    fused = fuses_optimiser(parameters[0].device)
    if config.name == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.99, nesterov=True, weight_decay=decay, fused=fused)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, rate, weight_decay=decay, fused=fused)


class Schedule:
    """The learning rate of `optimiser` over a run of `total_steps` steps.

    Rates by step are set here rather than by torch's LambdaLR, which warns when the first steps are skipped, as they
    are in float16 until the loss scale has come down.
    """

    def __init__(self, config: OptimiserConfig, optimiser: torch.optim.Optimizer, total_steps: int) -> None:
        self._config, self._optimiser, self._total_steps = config, optimiser, total_steps
        self._steps = 0
        self._by_score: torch.optim.lr_scheduler.ReduceLROnPlateau | None = None
        if config.schedule == "plateau":
            self._by_score = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.1, patience=10)
        else:
            self._set_rate()

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self._optimiser.param_groups[0]["lr"])

    def after_step(self) -> None:
        """Move on by one step."""
        self._steps += 1
        if self._by_score is None:
            self._set_rate()

    def after_validation(self, score: float) -> None:
        """Take note of what the run maximises."""
        if self._by_score is not None:
            self._by_score.step(score)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for an exact resume."""
        return {"steps": self._steps, "by_score": self._by_score and self._by_score.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`. The rate itself comes back with the optimiser's state."""
        self._steps = state["steps"]
        if self._by_score is not None:
            self._by_score.load_state_dict(state["by_score"])

    def _set_rate(self) -> None:
        warmup = min(1.0, (self._steps + 1) / max(1, self._config.warmup_steps))
        done = min(self._steps, self._total_steps - 1) / self._total_steps
        fall = (1 + math.cos(math.pi * done)) / 2 if self._config.schedule == "cosine" else (1 - done) ** 0.9
        for group in self._optimiser.param_groups:
            group["lr"] = self._config.learning_rate * warmup * fall
