"""One place decides the arithmetic of a training run, and whether a step is taken."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.config import PrecisionName, UNetConfig
from models.cpu_table import cost_of, cpu_kind


@dataclass(frozen=True, kw_only=True)
class Precision:
    """dtype: what autocast computes in, None for float32 throughout; use_scaler: whether gradients need scaling."""

    dtype: torch.dtype | None
    use_scaler: bool
    name: str

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """The context to run forward passes and losses in."""
        return torch.autocast(device_type=device.type, dtype=self.dtype, enabled=self.dtype is not None)


FLOAT32 = Precision(dtype=None, use_scaler=False, name="float32")
BFLOAT16 = Precision(dtype=torch.bfloat16, use_scaler=False, name="bfloat16")
# Its smallest positive value is 6e-8; a mean over 128³ voxels divides gradients by more.
FLOAT16 = Precision(dtype=torch.float16, use_scaler=True, name="float16")


def choose_precision(
    device: torch.device, requested: PrecisionName = "auto", network: UNetConfig | None = None
) -> Precision:
    """auto: bfloat16 on GPUs from sm_80 (Ampere), float16 on older ones with tensor cores (sm_70 and later, as T4), on
    CPUs bfloat16 where the network's step was measured to be faster in it (cpu_table.py), else float32, as for
    all imported ones.

    Raises ValueError for a name that isn't one of PrecisionName.
    """
    named = {precision.name: precision for precision in (FLOAT32, BFLOAT16, FLOAT16)}
    if requested in named:
        return named[requested]
    if requested != "auto":
        raise ValueError(f"precision: wanted auto, {', '.join(named)}, got {requested!r}")
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return BFLOAT16 if capability >= (8, 0) else FLOAT16 if capability >= (7, 0) else FLOAT32
    imported = network is not None and network.network is not None
    if device.type == "cpu" and not imported and cost_of(network, cpu_kind()).wants_bfloat16:
        return BFLOAT16
    return FLOAT32


class NonFiniteGradientsError(RuntimeError):
    """Too many steps in a row had infinite or NaN gradients."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """taken: whether the weights moved. gradient_norm: before clipping, may be inf or NaN when not taken.

    loss: the sum of the step's losses.
    """

    taken: bool
    gradient_norm: float
    loss: float


class OptimiserStep:
    """Backward passes, then one clipped update; an update whose gradients aren't finite is skipped and counted.

    clip_norm: what the norm of all gradients together is clipped to, None: nothing. stop_after: skipped steps in a row
    that end it. DDP's averaged gradients are equal on all workers, so all of them take a step or none does.
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        precision: Precision,
        *,
        device: torch.device,
        clip_norm: float | None = 12.0,
        stop_after: int = 10,
    ) -> None:
        self.steps_taken = 0
        self.steps_skipped = 0
        self.skipped_in_a_row = 0
        self._network = network
        self._optimiser = optimiser
        self._precision = precision
        self._clip_norm = clip_norm
        self._stop_after = stop_after
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision.use_scaler)
        self._losses: list[Tensor] = []

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss to those of the step's earlier losses, new since the last update."""
        if not self._losses:
            self._optimiser.zero_grad(set_to_none=True)
        self._losses.append(loss.detach())
        self._scaler.scale(loss).backward()

    def update(self, *, describe_batch: Callable[[], str] | None = None) -> StepResult:
        """Take or skip one step along the gradients gathered. describe_batch: called for the diagnosis only.

        Raises NonFiniteGradientsError, naming the parameters, after `stop_after` skipped steps in a row.
        """
        self._scaler.unscale_(self._optimiser)
        parameters = [parameter for group in self._optimiser.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # Waits for the GPU, the one time in a step: whether it is taken is decided here, and the loss comes along.
        gradient_norm, loss = torch.stack((norm, torch.stack(self._losses).sum())).tolist()
        self._losses.clear()
        finite = math.isfinite(gradient_norm)
        if finite:
            if self._clip_norm is not None:
                nn.utils.clip_grads_with_norm_(parameters, self._clip_norm, norm)
            self._optimiser.step()  # the scaler's own would ask the GPU again whether a gradient isn't finite
            self.steps_taken += 1
            self.skipped_in_a_row = 0
        else:
            self.steps_skipped += 1
            self.skipped_in_a_row += 1
        self._scaler.update()
        if self.skipped_in_a_row >= self._stop_after:
            raise NonFiniteGradientsError(self._diagnose(loss, describe_batch))
        return StepResult(taken=finite, gradient_norm=gradient_norm, loss=loss)

    def state_dict(self) -> dict[str, Any]:
        """Plain values for an exact resume."""
        return {
            "steps_taken": self.steps_taken,
            "steps_skipped": self.steps_skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.steps_taken = state["steps_taken"]
        self.steps_skipped = state["steps_skipped"]
        self.skipped_in_a_row = state["skipped_in_a_row"]
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])

    def _diagnose(self, loss: float, describe_batch: Callable[[], str] | None) -> str:
        broken_weights = _names_not_finite((name, value) for name, value in self._network.named_parameters())
        broken_gradients = _names_not_finite(
            (name, value.grad) for name, value in self._network.named_parameters() if value.grad is not None
        )
        scaling = f", loss scale {self._scaler.get_scale():g}" if self._precision.use_scaler else ""
        if broken_weights:
            cause = "the weights are no longer finite: go back to an earlier checkpoint and lower the learning rate"
        elif not math.isfinite(loss):
            cause = "the loss isn't finite: look at the batch for non-finite voxels, or lower the learning rate"
        else:
            cause = "the loss is finite but its gradients aren't: lower the learning rate, or try precision float32"
        return (
            f"wanted finite gradients, got {self.skipped_in_a_row} steps in a row without "
            f"({self.steps_taken} steps taken before or between, {self.steps_skipped} skipped in all). "
            f"Loss {loss:g} in {self._precision.name}{scaling}; {cause}. "
            f"Gradients not finite: {_shorten(broken_gradients)}. Weights not finite: {_shorten(broken_weights)}."
            + (f" Batch: {describe_batch()}." if describe_batch is not None else "")
        )


def _names_not_finite(named: Iterable[tuple[str, Tensor]]) -> list[str]:
    return [name for name, value in named if not bool(torch.isfinite(value).all())]


def _shorten(names: list[str]) -> str:
    return "none" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
