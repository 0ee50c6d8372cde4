"""The groups of a run's flags that the rooms of this package own: optimiser, validation, checkpoints, ranks."""

import dataclasses
from typing import Literal

from storage import InputError


def refuse_below_one(config: object, *names: str, group: str = "") -> None:
    """Raise InputError for a field of these names that is given and below 1, under its flag `--<group><name>`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise InputError(f"--{group}{name.replace('_', '-')} must be at least 1, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """How weights follow gradients."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw, adam, or sgd with Nesterov momentum 0.99 (nnU-Net's)."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    schedule: Literal["poly", "cosine", "plateau"] = "poly"
    """poly: falls to zero as (1 - step / steps) ** 0.9 (nnU-Net's). cosine: half a wave (Loshchilov and Hutter 2017).
    plateau: a tenth whenever the validation score has not risen for ten validations (ReduceLROnPlateau), no warm-up."""
    weight_decay: float = 1e-5
    """Pull of the weights towards zero: the optimiser's weight decay."""
    clip_norm: float | None = 12.0
    """Gradients are scaled down to this norm; 12 is nnU-Net's."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises from zero."""
    ema_decay: float | None = None
    """Score and save an exponential moving average of the weights with this decay, such as 0.999. Default: none."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 10:
            raise InputError(f"--optimiser.learning-rate must lie between 0 and 10, got {self.learning_rate}")
        if self.schedule == "plateau" and self.warmup_steps:
            raise InputError("--optimiser.schedule plateau has no warm-up: give --optimiser.warmup-steps 0")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise InputError(f"--optimiser.ema-decay must lie between 0 and 1, or be None, got {self.ema_decay}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Sliding-window inference over whole held-out cases."""

    whole: bool = False
    """Predict each case (3-D) or slice (2-D) at once, padded to what the network's depth wants, not in windows of the
    patch's shape. Of networks trained on patches it is worth less the longer they train: docs/results.md."""
    head_only: bool = True
    """Outside the head, where every modality is 0, no region is predicted."""
    overlap: float = 0.25
    """Share of a window that its neighbour covers too."""
    window_batch: int = 2
    """Windows (3-D) or slices (2-D) predicted at once."""
    mirror: bool = False
    """Average the predictions of all mirror images: eight times the work in 3-D, four in 2-D."""
    every: int = 1
    """Epochs between validations; the last epoch always has one."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise InputError(f"--validation.overlap must lie in [0, 1), got {self.overlap}")
        refuse_below_one(self, "every", group="validation.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When state is saved, besides after each validation and each epoch of a minute or more, and how much is kept."""

    every_steps: int | None = None
    """Steps between checkpoints within an epoch. Default: by the clock alone."""
    every_minutes: float | None = 10.0
    """Minutes after which a checkpoint is due within an epoch: what a lost node costs at most."""
    keep_best: int = 1
    """Checkpoints kept for their validation score, besides the newest."""
    on_failure: Literal["continue", "stop"] = "continue"
    """When one cannot be written (disk full, bucket unreachable): go on with a warning, or end the run."""

    def __post_init__(self) -> None:
        refuse_below_one(self, "every_steps", "keep_best", group="checkpoints.")
        if self.every_minutes is not None and self.every_minutes <= 0:
            raise InputError(f"--checkpoints.every-minutes must be more than 0, got {self.every_minutes}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How the ranks of a run talk; without effect for one rank. docs/scaling.md says what each switch is worth."""

    bucket_mb: float = 25.0
    """Gradients are sent in buckets of this many MiB. Smaller ones leave earlier, more of them cost more latency."""
    gradient_compression: Literal["none", "fp16", "bf16"] = "none"
    """Send gradients in 16 bits: half the bytes. bf16 keeps the range and 8 bits of the value; fp16 keeps 11 bits, but
    gradients below 6e-8 become zero unless the run's precision is float16, whose loss scale lifts them."""
    timeout: int = 600
    """Seconds that a rank waits for the others in one collective before the run fails and names rank and step. It must
    be longer than one rank may lawfully keep the others waiting, as by the longest case of a validation."""

    def __post_init__(self) -> None:
        if not self.bucket_mb > 0:
            raise InputError(f"--parallel.bucket-mb must be above 0, got {self.bucket_mb}")
        if self.timeout < 1:
            raise InputError(f"--parallel.timeout must be at least 1 second, got {self.timeout}")
