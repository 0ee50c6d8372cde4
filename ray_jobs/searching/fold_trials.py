"""A trial that is a whole cross-validation: its folds train one after the other, its score is that of all cases."""

from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from ray_jobs.checkpoints.folds import fold_folder
from ray_jobs.checkpoints.run_folder import SUMMARY, RunFolder
from ray_jobs.evaluation.out_of_fold import PLAIN, sum_up_folds
from ray_jobs.reporting.folds_page import write_folds_page
from ray_jobs.reporting.run_page import keep_page, write_run_page
from ray_jobs.searching.space import set_fields
from ray_jobs.settings.config import give_by_hand, run_identity
from ray_jobs.training.fit import fit
from ray_jobs.training.planning import Decided
from storage import InputError, open_store


def make_fold_trial(decided: Decided, trials: str) -> Callable[[Mapping[str, Any]], None]:
    """Return the function that is a trial: with the values it is given it trains every fold in a folder of its own.

    It reports once, at its end. What is finished when it is started again is not trained again.
    """

    def trial(chosen: Mapping[str, Any]) -> None:
        config = give_by_hand(set_fields(decided.plan.config, chosen), chosen)
        whole = RunFolder(trials, tune.get_context().get_trial_id())
        whole.claim(run_identity(config, decided.store_digest))
        own = decided.with_plan(config=config)
        folds = range(config.splits.folds or 0)
        summaries = {fold: train_fold(own.of_fold(fold), fold_folder(whole, fold)) for fold in folds}
        summary = sum_up_folds(summaries, open_store(own.plan.store).infos())
        whole.write(SUMMARY, summary)
        keep_page(write_folds_page, whole, print)
        tune.report(report_of(summary, summaries))

    return trial


def train_fold(decided: Decided, folder: RunFolder) -> dict[str, Any]:
    """Train one fold, unless it is finished, and return what its summary.json says."""
    finished = folder.claim(run_identity(decided.plan.config, decided.store_digest))
    if finished is not None:
        return finished
    result = fit(decided.plan, folder, workers=decided.sizes, use_gpu=decided.use_gpu, board=None)
    if "failed" in result:
        raise InputError(result["failed"])
    summary = {"run": folder.name, **result}
    folder.write(SUMMARY, summary)
    keep_page(write_run_page, folder, print)
    return summary


def report_of(summary: Mapping[str, Any], folds: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """Return what Tune is told: the scores out of fold; thresholds and speed are means over the folds."""
    report = {
        f"{kind}_{region}": score["mean"] for kind in PLAIN for region, score in summary["out_of_fold"][kind].items()
    }
    every = summary["folds"]
    for region in every[0]["threshold"]:
        report[f"threshold_{region}"] = sum(fold["threshold"][region] for fold in every) / len(every)
    speeds = [fold["throughput"]["patches_per_second"] for fold in every]
    last = max(fold["history"][-1]["epoch"] for fold in folds.values())
    return {**report, "epoch": last, "patches_per_second": sum(speeds) / len(speeds)}
