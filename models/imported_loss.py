"""Losses of other people's, by import path."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from models.config import LossConfig
from models.import_path import arguments_for, find_named, in_a_line

SIDE = 16  # of the patches that a loss is tried on


def make_loss(config: LossConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what `config` names: an object of that class, or that function with its arguments. Raises ValueError."""
    assert config.function is not None
    named = find_named(config.function)
    of_class = isinstance(named, type)
    given = arguments_for(named, config.function, config.arguments, known={}, automatic={}, free=0 if of_class else 2)
    if not of_class:
        return partial(named, **given)
    try:
        made = named(**given)
    except Exception as error:
        said = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(f"{config.function}({said}) fails: {in_a_line(error)}") from error
    if not callable(made):
        raise ValueError(f"{config.function} gives a {type(made).__name__}, which cannot be called")
    if isinstance(made, nn.Module) and any(True for _ in made.parameters()):
        raise ValueError(f"{config.function} has weights of its own, which would not be trained")
    return cast(Callable[[Tensor, Tensor], Tensor], made)


def check_loss(config: LossConfig, *, regions: int, dimensions: int) -> None:
    """Raise ValueError unless the loss makes of logits and regions (B, R, …) a number with a gradient."""
    shape = (2, regions, *(SIDE,) * dimensions)
    logits = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).requires_grad_()
    loss = make_loss(config)
    try:
        value = loss(logits, (logits.detach() > 0.5).float())
    except Exception as error:  # whatever its own code raises
        raise ValueError(f"{config.function} does not take logits and regions {shape}: {in_a_line(error)}") from error
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        came = f"{tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        graded = isinstance(value, Tensor) and value.numel() == 1
        raise ValueError(
            f"{config.function} gives {came}{' without a gradient' if graded else ''} for logits and regions {shape}: "
            "wanted one number to go down along"
        )
