"""An exponential moving average of a network's weights, which often scores better than the weights themselves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Follows `network`'s parameters: average = decay * average + (1 - decay) * parameter, after every update.

    The decay starts low, min(decay, (1 + n) / (10 + n)) after n updates, so that the random start is soon forgotten
    (as in TensorFlow's ExponentialMovingAverage). Buffers are not averaged: the network's own are used.
    Raises ValueError for a decay that is not between 0 and 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"wanted a decay between 0 and 1, got {decay}")
        self._parameters = dict(network.named_parameters())
        self._average = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        now = [value.detach() for value in self._parameters.values()]
        get_ema_multi_avg_fn(decay)(list(self._average.values()), now, self._updates)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The network computes with the average inside, and with its own weights again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """The average and its age."""
        return {"updates": self._updates, "average": {name: value.clone() for name, value in self._average.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._updates = state["updates"]
        for name, value in self._average.items():
            value.copy_(state["average"][name])

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange values in place: compiled networks and wrappers keep seeing the same tensors."""
        for name, average in self._average.items():
            parameter = self._parameters[name]
            kept: Tensor = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)
