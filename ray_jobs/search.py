"""A search over fields of the training configuration as Ray Tune trials, each of which is a whole Ray Train run.

Every report of a trial carries the best threshold per region and the IoU there, so the search answers for both.
"""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import optuna
import ray
import tyro
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from ray_jobs.config import TrainConfig, run_identity, short_hash
from ray_jobs.exit_status import StoppedBySignalError
from ray_jobs.fit import fit
from ray_jobs.planning import Decided, decide
from ray_jobs.ray_start import on_a_cluster
from ray_jobs.run_folder import CONFIG, RunFolder
from ray_jobs.search_progress import SearchProgress
from ray_jobs.search_results import RESULTS, Pricing, export_best, make_row, sort_rows
from ray_jobs.search_scheduler import METRIC, RememberingASHA
from ray_jobs.search_space import LEARNING_RATE, Domain, parse_space, set_fields
from ray_jobs.threshold_scan import Split
from storage import InputError
from storage.objects import Objects

TRIALS = "trials"  # the folder below the search's that holds the trials' runs


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
    """Trials at once. Default: as many as the machine's workers allow; on a cluster that may grow, all."""
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
        for name in ("trials", "grace_epochs", "max_concurrent", "threshold_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if (self.checkpoint is not None) != (self.search == "threshold"):
            raise InputError("--search threshold and --checkpoint go together: give both or neither")
        domains = self.domains()  # what is wrong with them is said here
        if self.algorithm == "grid" and any(domain.kind != "choice" for domain in domains.values()):
            raise InputError(f"--algorithm grid wants --space FIELD=choice:A,B for all, {LEARNING_RATE} included")

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


def run_search(search: SearchConfig, console: Console) -> tuple[list[dict[str, Any]], RunFolder]:
    """Run every trial and return one row per trial, best first. A finished search returns its rows at once."""
    base = search.training
    decided = decide(base, console)
    identity = run_identity(base, decided.store_digest) | {"search": search.identity()}
    name = base.name or f"tune-{base.preset}-{short_hash(identity)}"
    folder = decided.open_folder(name)
    was_there = folder.read(CONFIG) is not None
    folder.claim(identity)
    finished = folder.read(RESULTS)
    if finished is not None:
        console.print(f"search {name} is finished; give another --name to search anew")
        return finished["trials"], folder
    if was_there and not search.resume:
        raise InputError(f"search {name} in {folder.runs} was cut off: give --resume to go on, or another --name")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tuner = build_tuner(search, decided, folder)
    with signals_raised():
        grid = tuner.fit()
    pricing = Pricing.of_cluster(search.price_per_node_hour, decided)
    trials = f"{folder.uri}/{TRIALS}"
    rows = sort_rows([make_row(result, trials, pricing, epochs=base.epochs) for result in grid])
    best = export_best(rows, folder)
    folder.write(RESULTS, {"trials": rows, "best": best, "pricing": pricing.to_json()})
    return rows, folder


def build_tuner(search: SearchConfig, decided: Decided, folder: RunFolder) -> tune.Tuner:
    """Return a new Tuner, or the one of a search that was cut off."""
    trainable = tune.with_resources(make_trial(decided, f"{folder.uri}/{TRIALS}"), driver_resources())
    if search.resume and was_under_way(folder):
        return tune.Tuner.restore(folder.uri, trainable=trainable, resume_unfinished=True)
    grid = search.algorithm == "grid"
    return tune.Tuner(
        trainable,
        param_space={name: domain.for_tune(grid=grid) for name, domain in search.domains().items()},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=1 if grid else search.trials,
            search_alg=OptunaSearch(seed=search.search_seed) if search.algorithm == "optuna" else None,
            scheduler=build_scheduler(search, folder),
            max_concurrent_trials=search.max_concurrent or most_at_once(decided),
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=folder.runs,
            verbose=0,
            callbacks=[SearchProgress(epochs=search.most_epochs(), trials=None if grid else search.trials)],
        ),
    )


def was_under_way(folder: RunFolder) -> bool:
    """Whether Tune has written down trials to go on with: not yet where a search was cut off in its first moments.

    Tuner.restore would then go on all the same, with one trial of no values.
    """
    files = Objects(folder.uri).keys()
    return any(file.startswith("experiment_state") for file in files) and tune.Tuner.can_restore(folder.uri)


def build_scheduler(search: SearchConfig, folder: RunFolder) -> TrialScheduler:
    """Return what stops trials early, or does not."""
    if search.scheduler == "none":
        return FIFOScheduler()
    return RememberingASHA(folder, max_epochs=search.most_epochs(), grace_epochs=search.grace_epochs)


def make_trial(decided: Decided, trials: str) -> Callable[[Mapping[str, Any]], None]:
    """Return the function that is a trial: it trains with the values it is given, in a run folder of its own."""
    plan, digest, sizes, use_gpu = decided.plan, decided.store_digest, decided.sizes, decided.use_gpu

    def trial(chosen: Mapping[str, Any]) -> None:
        config = set_fields(plan.config, chosen)
        # A name that a restarted trial has again: it goes on from its own checkpoint.
        own = RunFolder(trials, tune.get_context().get_trial_id())
        own.claim(run_identity(config, digest))
        own_plan = dataclasses.replace(plan, config=config, may_end_at_a_report=True)
        result = fit(own_plan, own, workers=sizes, use_gpu=use_gpu, board=None, callbacks=[TuneReportCallback()])
        if "failed" in result:
            raise InputError(result["failed"])
        # What was reported before a restart is not reported again, so the last word is the run's own record.
        history: list[dict[str, Any]] = result["history"]
        best = max(history, key=lambda row: row["iou_mean"])
        own.write_summary(result)
        tune.report({**best, "epoch": history[-1]["epoch"], "best_epoch": best["epoch"], "run_finished": True})

    return trial


def driver_resources() -> dict[str, float]:
    """Return what a trial's driver asks for: the head's own resource, or next to nothing where there is none.

    It only waits: it must not take a worker's CPU, or workers and drivers wait for each other.
    """
    return {"tune_driver": 1} if "tune_driver" in ray.cluster_resources() else {"CPU": 0.001}


def most_at_once(decided: Decided) -> int:
    """Return how many trials have workers at the same time; on a cluster, which may grow, as many as have drivers."""
    resources = ray.cluster_resources()
    if on_a_cluster() and "tune_driver" in resources:
        return int(resources["tune_driver"])
    return max(1, int(resources.get("GPU" if decided.use_gpu else "CPU", 0) // decided.workers))


@contextmanager
def signals_raised() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the search at once. Tune would take Ctrl-C itself and wait for its trials."""

    def stop(number: int, _frame: object) -> None:
        raise StoppedBySignalError(128 + number, "the same command with --resume goes on")

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
