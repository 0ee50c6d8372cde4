"""Search the learning rate with Ray Tune: `python ray_jobs/tune.py --help`. Each trial is a whole Ray Train run."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import ray
import tyro
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console
from rich.table import Table

from ray_jobs.cohort import cache_folder, find_or_make_store, split_cases
from ray_jobs.command import parse_over_preset, run_command
from ray_jobs.config import TrainConfig, default_run_name, run_identity
from ray_jobs.ray_start import choose_workers, ray_running, refuse_hidden_folder
from ray_jobs.run_folder import RunFolder
from ray_jobs.train import fit
from ray_jobs.train_loop import TrainPlan
from storage import REGIONS, InputError

MOST_TRIALS_AT_ONCE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Search the learning rate of a training run; every trial reports the best threshold per region as well."""

    learning_rates: tuple[float, ...] = (1e-3, 3e-3)
    """Learning rates to try, each in a run of its own."""
    training: Annotated[TrainConfig, tyro.conf.OmitArgPrefixes]

    def __post_init__(self) -> None:
        if not self.learning_rates:
            raise InputError("--learning-rates wants at least one value")


def main(arguments: Sequence[str]) -> int:
    """Run the search the command line describes; return the exit status."""
    search = parse_over_preset(arguments, lambda base: SearchConfig(training=base), SearchConfig)
    console = Console()
    with ray_running(tune_drivers=MOST_TRIALS_AT_ONCE):
        results, folder = run_search(search, console)
    print_trials(results, folder, console)
    return 0 if any("iou_mean" in trial for trial in results) else 1


def run_search(search: SearchConfig, console: Console) -> tuple[list[dict[str, Any]], RunFolder]:
    """Run every trial and return one row per learning rate, best first."""
    base = search.training
    workers, use_gpu = choose_workers(base.workers, gpu=base.gpu)
    store = find_or_make_store(base, console)
    splits = split_cases(store)
    folder = RunFolder(base.runs, base.name or f"tune-{default_run_name(base, store.digest)}")
    folder.claim(run_identity(base, store.digest) | {"learning_rates": list(search.learning_rates)})
    refuse_hidden_folder(store.uri, "store")
    refuse_hidden_folder(folder.uri, "run folder")

    def trial(chosen: dict[str, float]) -> None:
        optimiser = dataclasses.replace(base.optimiser, learning_rate=chosen["learning_rate"])
        plan = TrainPlan(
            config=dataclasses.replace(base, optimiser=optimiser), store=store.uri, splits=splits, cache=cache_folder()
        )
        # A name that a restarted trial finds again: it goes on from its own checkpoint.
        inner = RunFolder(folder.uri, f"trial-lr-{chosen['learning_rate']:g}")
        fit(plan, inner, workers=workers, use_gpu=use_gpu, board=None, callbacks=[TuneReportCallback()])

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


def print_trials(rows: Sequence[dict[str, Any]], folder: RunFolder, console: Console) -> None:
    """Print one line per trial, best first."""
    table = Table(title=f"search {folder.name}")
    columns = ["learning_rate", "epoch", "iou_mean", *(f"{kind}_{r}" for kind in ("iou", "threshold") for r in REGIONS)]
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(f"{row[column]:.4g}" if column in row else row.get("error", "")[:40] for column in columns))
    console.print(table)
    console.print(f"results {folder.uri}/results.json", soft_wrap=True, highlight=False)


def _row(result: Any) -> dict[str, Any]:
    metrics = result.metrics or {}
    kept = {key: value for key, value in metrics.items() if key.startswith(("iou", "dice", "threshold", "epoch"))}
    kept |= {key: metrics[key] for key in ("loss", "patches_per_second", "checkpoint_path") if key in metrics}
    failed = {"error": str(result.error).splitlines()[-1]} if result.error else {}
    return {"learning_rate": result.config["learning_rate"], **kept, **failed}


if __name__ == "__main__":
    sys.exit(run_command(main))
