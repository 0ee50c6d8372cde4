"""A search over learning rates as Ray Tune trials, each of which is a whole Ray Train run."""

import dataclasses
from typing import Annotated, Any

import ray
import tyro
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console

from ray_jobs.cohort import cache_folder, find_or_make_store
from ray_jobs.config import TrainConfig, default_run_name, run_identity
from ray_jobs.fit import fit
from ray_jobs.ray_start import choose_workers, refuse_hidden_folder
from ray_jobs.run import TrainPlan
from ray_jobs.run_folder import RunFolder
from storage import InputError, split_cohort


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Search the learning rate of a training run; every trial reports the best threshold per region as well."""

    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    """Learning rates to try, each in a run of its own."""
    training: Annotated[TrainConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        if not self.learning_rates:
            raise InputError("--learning-rates wants at least one value")


def run_search(search: SearchConfig, console: Console) -> tuple[list[dict[str, Any]], RunFolder]:
    """Run every trial and return one row per learning rate, best first."""
    base = search.training
    workers, use_gpu = choose_workers(base.workers, gpu=base.gpu)
    store = find_or_make_store(base, console)
    splits = split_cohort(store, base.splits)
    folder = RunFolder(base.runs, base.name or f"tune-{default_run_name(base, store.digest)}")
    refuse_hidden_folder(store.uri, "store")
    refuse_hidden_folder(folder.uri, "run folder")
    folder.claim(run_identity(base, store.digest) | {"learning_rates": list(search.learning_rates)})
    trials_folder = folder.uri
    plan = TrainPlan(config=base, store=store.uri, splits=splits, cache=cache_folder())

    def trial(chosen: dict[str, float]) -> None:
        optimiser = dataclasses.replace(base.optimiser, learning_rate=chosen["learning_rate"])
        own_plan = dataclasses.replace(plan, config=dataclasses.replace(base, optimiser=optimiser))
        # A name that a restarted trial finds again: it goes on from its own checkpoint.
        own = RunFolder(trials_folder, f"trial-lr-{chosen['learning_rate']:g}")
        fit(own_plan, own, workers=workers, use_gpu=use_gpu, board=None, callbacks=[TuneReportCallback()])

    available = ray.cluster_resources().get("GPU" if use_gpu else "CPU", workers)
    tuner = tune.Tuner(
        # A trial's driver only waits: it must not take a worker's CPU, or workers and drivers wait for each other.
        tune.with_resources(trial, driver_resources()),
        param_space={"learning_rate": tune.grid_search(list(search.learning_rates))},
        tune_config=tune.TuneConfig(
            metric="iou_mean", mode="max", max_concurrent_trials=max(1, int(available // workers))
        ),
        run_config=tune.RunConfig(name=folder.name, storage_path=folder.runs, verbose=0),
    )
    with console.status(f"{len(search.learning_rates)} trials of {base.epochs} epochs"):
        grid = tuner.fit()
    rows = [_row(result) for result in grid]
    rows.sort(key=lambda row: row.get("iou_mean", -1.0), reverse=True)
    folder.write("results.json", {"trials": rows})
    return rows, folder


def driver_resources() -> dict[str, float]:
    """Return what a trial's driver asks for: the head's own resource, or next to nothing where there is none."""
    return {"tune_driver": 1} if "tune_driver" in ray.cluster_resources() else {"CPU": 0.001}


def _row(result: Any) -> dict[str, Any]:
    metrics = result.metrics or {}
    kept = {key: value for key, value in metrics.items() if key.startswith(("iou", "dice", "threshold", "epoch"))}
    kept |= {key: metrics[key] for key in ("loss", "patches_per_second", "checkpoint_path") if key in metrics}
    failed = {"error": str(result.error).splitlines()[-1]} if result.error else {}
    return {"learning_rate": result.config["learning_rate"], **kept, **failed}
