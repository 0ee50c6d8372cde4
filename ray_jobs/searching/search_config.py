"""What a search is told."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from ray_jobs.searching.cases_to_score import Split
from ray_jobs.searching.space import LEARNING_RATE, Domain, parse_space, set_fields
from ray_jobs.settings.config import PATCH, TrainConfig
from ray_jobs.settings.groups import refuse_below_one
from storage import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Search the learning rate, and other fields, of a training run; every trial has its best thresholds as well."""

    search: Literal["learning-rate", "threshold"] = "learning-rate"
    """learning-rate: each trial trains. threshold: each trial scores --checkpoint at one threshold, without training.
    """
    trials: int = 8
    """Trials to run; a grid runs as many as it has points."""
    learning_rates: tuple[float, float] = (3e-4, 3e-2)
    """Lowest and highest learning rate; between them the logarithm is uniform."""
    space: tuple[str, ...] = ()
    """More fields to search, as FIELD=KIND:VALUES: optimiser.weight_decay=loguniform:1e-6:1e-2,
    loss.dice_weight=uniform:0.5:2, epochs=integer:4:8, optimiser.name=choice:adamw,sgd."""
    algorithm: Literal["optuna", "random", "grid"] = "optuna"
    """optuna: Bayesian (TPE); grid: every combination of choices, all domains being --space …=choice:…"""
    scheduler: Literal["asha", "none"] = "asha"
    """asha: of trials at the same epoch the worse ones are stopped; none: all train to the end."""
    grace_epochs: int = 1
    """Epochs that asha leaves every trial."""
    max_concurrent: int | None = None
    """Trials at once. Default: as many as the machine holds, or the cluster when it has grown to its limit."""
    price_per_node_hour: float | None = None
    """Price of a node with all its GPUs for an hour, in any currency: trials are listed with what they cost."""
    resume: bool = False
    """Go on with a search that was cut off: finished trials are kept, others go on from their checkpoints."""
    search_seed: int = 0
    """Of the values that are tried."""
    checkpoint: str | None = None
    """For --search threshold: a checkpoint or a run's folder, path or s3:// URL."""
    split: Split = "validation"
    """For --search threshold: the cases to score."""
    threshold_steps: int = 20
    """For --search threshold: trials are at 0, 1/steps, 2/steps … 1."""
    training: Annotated[TrainConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        low, high = self.learning_rates
        if not 0 < low < high:
            raise InputError(f"--learning-rates wants the lowest above 0 and then the highest, got {low} {high}")
        refuse_below_one(self, "trials", "grace_epochs", "max_concurrent", "threshold_steps")
        if (self.checkpoint is not None) != (self.search == "threshold"):
            raise InputError("--search threshold and --checkpoint go together: give both or neither")
        if self.training.dry_run or self.training.max_cost is not None or self.training.max_cost_an_hour is not None:
            raise InputError("--dry-run and --max-cost are train.py's: a search is limited by --trials and its epochs")
        splits = self.training.splits
        if self.search == "learning-rate" and not splits.validates:
            raise InputError("a search goes by the validation score: give --splits.validation-fraction a share above 0")
        of_folds = self.search == "learning-rate" and splits.folds is not None and splits.fold is None
        if of_folds and self.scheduler != "none":
            raise InputError(
                f"a trial of {splits.folds} folds has no score before its end, by which one could be stopped: give "
                "--scheduler none, or the one fold that each trial trains with --splits.fold"
            )
        domains = self.domains()  # what is wrong with them is said here
        if self.algorithm == "grid" and any(domain.kind != "choice" for domain in domains.values()):
            raise InputError(f"--algorithm grid wants --space FIELD=choice:A,B for all, {LEARNING_RATE} included")
        networks = [name for name in domains if name.startswith("model.")]
        if networks and PATCH in self.training.by_memory:  # settled once for all trials, by the first one's network
            raise InputError(f"--space {networks[0]} wants a patch for all networks: give --sampling.patch-shape")

    def to_score(self) -> tuple[str, str]:
        """The checkpoint and the store of --search threshold. Raises InputError where one is missing."""
        if self.checkpoint is None or self.training.store is None:
            raise InputError("--search threshold wants --checkpoint and --store")
        return self.checkpoint, self.training.store

    def domains(self) -> dict[str, Domain]:
        """What is searched: field to domain. Raises InputError."""
        low, high = self.learning_rates
        learning_rate = {LEARNING_RATE: Domain(kind="loguniform", low=low, high=high)}
        return learning_rate | parse_space(self.space, self.training)

    def most_epochs(self) -> int:
        """Return the most epochs that a trial may have."""
        domain = self.domains().get("epochs")
        values = domain.examples if domain is not None else (self.training.epochs,)
        return max(set_fields(self.training, {"epochs": value}).epochs for value in values)

    def identity(self) -> dict[str, Any]:
        """What makes two starts the same search, beside what their runs share."""
        own = ("trials", "learning_rates", "space", "algorithm", "scheduler", "grace_epochs", "search_seed")
        return {name: list(v) if isinstance(v := getattr(self, name), tuple) else v for name in own}
