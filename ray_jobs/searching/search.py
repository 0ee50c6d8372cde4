"""A search over fields of the training configuration as Ray Tune trials, each of which is a whole Ray Train run.

Every report of a trial carries the best threshold per region and the scores there, so the search answers for both.
"""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from models import Objective
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, RunFolder
from ray_jobs.on_ray.address import cluster_file, on_a_cluster
from ray_jobs.on_ray.last_workers import wait_for_last_workers
from ray_jobs.on_ray.places import most_workers_at_a_place
from ray_jobs.on_ray.ray_start import find_dashboard
from ray_jobs.reporting.run_page import keep_page, write_run_page
from ray_jobs.searching.fold_trials import make_fold_trial
from ray_jobs.searching.old_names import know_old_names
from ray_jobs.searching.results import RESULTS, TRIALS, Pricing, export_best, make_row, sort_rows
from ray_jobs.searching.scheduler import RememberingASHA
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.searching.space import set_fields
from ray_jobs.searching.trial_progress import SearchProgress
from ray_jobs.settings.config import give_by_hand, keep_given_patch, run_identity, short_hash
from ray_jobs.settings.exit_status import StoppedBySignalError
from ray_jobs.settings.objective import RULES
from ray_jobs.training.fit import fit
from ray_jobs.training.memory_plan import MEMORY
from ray_jobs.training.planning import Decided, decide
from ray_jobs.watching.where_to_look import where_to_look
from storage import InputError, Region
from storage.store.objects import Objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class Searched:
    """One row per trial, best first, the folder they lie in, the regions they are scored on and what is maximised."""

    rows: list[dict[str, Any]]
    folder: RunFolder
    regions: tuple[Region, ...]
    objective: Objective


def run_search(search: SearchConfig, console: Console) -> Searched:
    """Run every trial. A finished search returns its rows at once."""
    decided = decide(search.training, console)
    base = decided.plan.config
    own = {"search": search.identity()}
    name = base.name or f"tune-{base.preset}-{short_hash(run_identity(base, decided.store_digest) | own)}"
    folder = decided.open_folder(name)
    before = folder.read(CONFIG)
    base = keep_given_patch(base, before)
    decided = decided.with_plan(config=base, settled_in=folder.uri)
    folder.claim(run_identity(base, decided.store_digest) | own)
    finished = folder.read(RESULTS)
    if finished is not None:
        console.print(f"search {name} is finished; give another --name to search anew")
        return Searched(rows=finished["trials"], folder=folder, regions=decided.regions, objective=base.objective)
    with folder.only_writer():
        if before is not None and not search.resume:
            raise InputError(f"search {name} in {folder.runs} was cut off: give --resume to go on, or another --name")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        at_once = search.max_concurrent or most_at_once(decided)
        console.print(describe_search(search, decided, at_once), soft_wrap=True)
        for line in where_to_look(folder.runs, find_dashboard()):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        tuner = build_tuner(search, decided, folder, at_once)
        with signals_raised():
            grid = tuner.fit()
            if not wait_for_last_workers():
                console.print(f"a stopped trial still trains: what it writes from now on is not in {RESULTS}")
        settled = folder.read(MEMORY)
        if settled is not None:
            console.print(settled["reason"], soft_wrap=True)
        pricing = Pricing.of_cluster(search.price_per_node_hour, decided)
        trials = f"{folder.uri}/{TRIALS}"
        made = [make_row(result, trials, pricing, epochs=base.epochs, objective=base.objective) for result in grid]
        rows = sort_rows(made, base.objective)
        best = export_best(rows, folder)
        said = {"rules": RULES, "objective": base.objective, "pricing": dataclasses.asdict(pricing)}
        folder.write(RESULTS, {"trials": rows, "best": best, **said})
    return Searched(rows=rows, folder=folder, regions=decided.regions, objective=base.objective)


def describe_search(search: SearchConfig, decided: Decided, at_once: int) -> str:
    """Say what is about to be tried, how much of it side by side."""
    trials = "a trial for each point of the grid" if search.algorithm == "grid" else f"{search.trials} trials"
    kind = "GPU" if decided.use_gpu else "share of the CPU"
    return f"{trials}, {at_once} at once, of {decided.workers} worker{'s' * (decided.workers > 1)} with a {kind} each"


def build_tuner(search: SearchConfig, decided: Decided, folder: RunFolder, at_once: int) -> tune.Tuner:
    """Return a new Tuner, or the one of a search that was cut off."""
    make = make_trial if decided.plan.config.splits.folds is None else make_fold_trial
    trainable = tune.with_resources(make(decided, f"{folder.uri}/{TRIALS}"), driver_resources())
    if search.resume and was_under_way(folder):
        know_old_names()
        return tune.Tuner.restore(folder.uri, trainable=trainable, resume_unfinished=True)
    grid = search.algorithm == "grid"
    return tune.Tuner(
        trainable,
        param_space={name: domain.for_tune(grid=grid) for name, domain in search.domains().items()},
        tune_config=tune.TuneConfig(
            metric=f"{decided.plan.config.objective}_mean",
            mode="max",
            num_samples=1 if grid else search.trials,
            search_alg=build_searcher(search, at_once) if search.algorithm == "optuna" else None,
            scheduler=build_scheduler(search, folder),
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=folder.runs,
            verbose=0,
            callbacks=[
                SearchProgress(
                    epochs=search.most_epochs(),
                    trials=None if grid else search.trials,
                    objective=decided.plan.config.objective,
                )
            ],
        ),
    )


def was_under_way(folder: RunFolder) -> bool:
    """Whether Tune has written down trials to go on with: not yet where a search was cut off in its first moments.

    Tuner.restore would then go on all the same, with one trial of no values.
    """
    files = Objects(folder.uri).keys()
    return any(file.startswith("experiment_state") for file in files) and tune.Tuner.can_restore(folder.uri)


def build_searcher(search: SearchConfig, at_once: int) -> OptunaSearch:
    """Return what draws values: half of the trials' at random, four to ten, the others' by what came of those."""
    blind = min(10, max(4, at_once, search.trials // 2))
    return OptunaSearch(sampler=optuna.samplers.TPESampler(seed=search.search_seed, n_startup_trials=blind))


def build_scheduler(search: SearchConfig, folder: RunFolder) -> TrialScheduler:
    """Return what stops trials early, or does not."""
    if search.scheduler == "none":
        return FIFOScheduler()
    return RememberingASHA(folder, max_epochs=search.most_epochs(), grace_epochs=search.grace_epochs)


def make_trial(decided: Decided, trials: str) -> Callable[[Mapping[str, Any]], None]:
    """Return the function that is a trial: it trains with the values it is given, in a run folder of its own."""
    plan, digest, sizes, use_gpu = decided.plan, decided.store_digest, decided.sizes, decided.use_gpu

    def trial(chosen: Mapping[str, Any]) -> None:
        config = give_by_hand(set_fields(plan.config, chosen), chosen)
        # A name that a restarted trial has again: it goes on from its own checkpoint.
        own = RunFolder(trials, tune.get_context().get_trial_id())
        own.claim(run_identity(config, digest))
        own_plan = dataclasses.replace(plan, config=config, may_end_at_a_report=True)
        result = fit(own_plan, own, workers=sizes, use_gpu=use_gpu, board=None, callbacks=[TuneReportCallback()])
        if "failed" in result:
            raise InputError(result["failed"])
        # What was reported before a restart is not reported again, so the last word is the run's own record.
        history: list[dict[str, Any]] = result["history"]
        best = max(history, key=lambda row: row[f"{config.objective}_mean"])
        own.write(SUMMARY, result)
        keep_page(write_run_page, own, print)
        tune.report({**best, "epoch": history[-1]["epoch"], "best_epoch": best["epoch"], "run_finished": True})

    return trial


def driver_resources() -> dict[str, float]:
    """Return what a trial's driver asks for: the head's own resource, or next to nothing where there is none.

    It only waits: it must not take a worker's CPU, or workers and drivers wait for each other.
    """
    return {"tune_driver": 1} if "tune_driver" in ray.cluster_resources() else {"CPU": 0.001}


def most_at_once(decided: Decided) -> int:
    """Return how many trials have workers at the same time: what the machine holds, or the cluster at its limit."""
    resources = ray.cluster_resources()
    if on_a_cluster() and "tune_driver" in resources:
        drivers = int(resources["tune_driver"])
        room = most_workers_at_a_place(cluster_file(), use_gpu=decided.use_gpu)
        return drivers if room is None else max(1, min(drivers, room // decided.workers))
    return max(1, int(resources.get("GPU" if decided.use_gpu else "CPU", 0) // decided.workers))


@contextmanager
def signals_raised() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the search at once. Tune would take Ctrl-C itself and wait for its trials.

    Whatever the body ends with after a signal, StoppedBySignalError comes out: Ray's C code that waits when the signal
    comes raises a SystemError over it, and Tune takes some errors for a trial's own.
    """
    stopped: list[StoppedBySignalError] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(StoppedBySignalError(128 + number, "the same command with --resume goes on"))
        raise stopped[0]

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if stopped:
            raise stopped[0]
