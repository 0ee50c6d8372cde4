"""What choosing a decision costs or brings: chosen on few subjects of stored out-of-fold evidence, scored on the rest.

Beside it what a choice by the highest score alone would have brought, as training chose until December 2026: for each
region the threshold that is best for the chosen cases.

`python -m benchmarks decisions --evidence runs/fold-0 runs/fold-1`
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.device import find_device
from benchmarks.report import describe_origin, print_table, write_record
from benchmarks.settings import DecisionsBenchmark
from benchmarks.whole_head import store_of
from models import GRID, Decision, Evidence, Objective, choose_decision, nested_decisions
from ray_jobs.checkpoints.checkpoint import EVIDENCE
from ray_jobs.evaluation.out_of_fold import mean_and_interval
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.evaluation.validation import evaluate
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.folders import cache_folder
from storage import DecodedCaseCache, InputError, open_store, split_cohort
from storage.labels.tasks import TASKS

Choose = Callable[[Evidence, Objective, Sequence[int]], Decision]


def run(config: DecisionsBenchmark) -> None:
    """Resample, and say what each way to choose gained on the cases that were not drawn."""
    evidence = join_folds([*read_evidence(config.evidence), *map(predict_held_out, config.held_out)])
    ways: dict[str, Choose] = {
        "beyond chance": lambda *given: choose_decision(*given).decision,
        "highest score": highest_thresholds,
    }
    rows: list[dict[str, Any]] = []
    for chosen_on in config.chosen_on:
        for way, choose in ways.items():
            gains, moved = resample(evidence, config, chosen_on, choose)
            rows.append(
                {
                    "thresholds and rules by": way,
                    "chosen on": chosen_on,
                    "draws": len(gains),
                    "other than plain": f"{moved:.0%}",
                    "gain": round(float(gains.mean()), 4),
                    "worst tenth below": round(float(np.quantile(gains, 0.1)), 4),
                }
            )
    subjects = len(evidence.subjects)
    plain_NR = evidence.scores(Decision.plain(len(evidence.labels)), config.objective)
    nested_NR = nested_scores(evidence, config.objective)
    regions = region_rows(evidence, plain_NR, nested_NR)
    title = (
        f"decisions on {len(evidence.cases)} cases of {subjects} subjects, {config.objective} by the plain decision "
        f"{plain_NR.mean():.4f}, by what the other {subjects - 1} subjects choose {nested_NR.mean():.4f}"
    )
    print_table(f"{config.objective} by region, with 95 % intervals over subjects", regions)
    print_table(title, rows)
    if config.json is not None:
        write_record({**describe_origin(title), "by_region": regions}, rows, config.json)


def region_rows(
    evidence: Evidence, plain_NR: NDArray[np.float64], nested_NR: NDArray[np.float64]
) -> list[dict[str, str]]:
    """What the regions score by the plain decision, each case by what the others choose, and the difference."""
    names = [*regions_of(evidence), "mean"]
    subjects = [case.subject for case in evidence.cases]
    scores = {"plain: 0.5, all kept": plain_NR, "each case by what the others choose": nested_NR}
    rows = []
    for decision, scores_NR in {**scores, "difference": nested_NR - plain_NR}.items():
        columns_NC = np.column_stack([scores_NR, scores_NR.mean(axis=1)])
        sign = "+" if decision == "difference" else ""
        figures = zip(*mean_and_interval(columns_NC, subjects), strict=True)
        said = [f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})" for mean, low, high in figures]
        rows.append({"decision": decision, **dict(zip(names, said, strict=True))})
    return rows


def regions_of(evidence: Evidence) -> Sequence[str]:
    """The regions' names in the first task whose regions have these labels; else the labels: evidence has no names."""
    tasks = (task for task in TASKS.values() if tuple(region.labels for region in task.regions) == evidence.labels)
    names = [f"labels {', '.join(map(str, labels))}" for labels in evidence.labels]
    return next((task.region_names for task in tasks), names)


def read_evidence(places: Sequence[Path]) -> list[Evidence]:
    """Return the evidence of each file in or below `places`. Raises InputError where one has none."""
    files = set[Path]()
    for place in places:
        found = [place] if place.is_file() else list(place.rglob(EVIDENCE))
        if not found:
            raise InputError(f"wanted {EVIDENCE} in or below {place}, found none: give finished runs")
        files.update(found)
    return [Evidence.decode(file.read_bytes()) for file in sorted(files)]


def predict_held_out(run: str) -> Evidence:
    """Return the evidence of the cases that a finished run kept for validation and test, predicted as it validates."""
    device = find_device("auto")
    network, store = open_trained(run, device), open_store(store_of(run))
    splits = split_cohort(store, network.config.splits)
    cache = DecodedCaseCache(store, cache_folder(), max_bytes=int(network.config.cache_gb * 1e9))
    with tempfile.TemporaryDirectory() as folder:
        evaluation = evaluate(
            network.evaluator(),
            cache,
            [*splits.validation, *splits.test],
            LocalSession(Path(folder), device),
            normalisation=network.config.normalisation,
            frame=network.config.frame,
            with_evidence=True,
        )
    assert evaluation.evidence is not None  # it was asked for
    return evaluation.evidence


def join_folds(folds: Sequence[Evidence]) -> Evidence:
    """Return the evidence of all folds in one. Raises InputError for none, and for a case in two."""
    if not folds:
        raise InputError("wanted --evidence or --held-out with the folds of one cross-validation, got neither")
    cases = [case for evidence in folds for case in evidence.cases]
    names = [case.case_id for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"wanted each case in one fold, found {twice[0]} in two: give the folds of one cross-validation"
        )
    return Evidence(cases, folds[0].labels)


def resample(
    evidence: Evidence, config: DecisionsBenchmark, chosen_on: int, choose: Choose
) -> tuple[NDArray[np.float64], float]:
    """Of each draw the gain over the plain decision on the subjects that were not drawn, and how often it differed."""
    if not 0 < chosen_on < len(evidence.subjects):
        raise InputError(f"--chosen-on must lie between 1 and {len(evidence.subjects) - 1}, got {chosen_on}")
    plain, rng = Decision.plain(len(evidence.labels)), np.random.default_rng(config.seed)
    plain_NR = evidence.scores(plain, config.objective)
    gains, moved = [], 0
    for _ in range(config.draws):
        drawn = np.isin(evidence.subject_N, rng.choice(len(evidence.subjects), chosen_on, replace=False))
        decision = choose(evidence, config.objective, np.flatnonzero(drawn).tolist())
        gains.append(float((evidence.scores(decision, config.objective) - plain_NR)[~drawn].mean()))
        moved += decision != plain
    return np.array(gains), moved / config.draws


def highest_thresholds(evidence: Evidence, objective: Objective, cases: Sequence[int]) -> Decision:
    """For each region the threshold of the grid with the highest mean; of equals the one nearest to one half."""
    regions, nearest = len(evidence.labels), sorted(GRID, key=lambda threshold: abs(threshold - 0.5))
    each = [
        evidence.scores(Decision(thresholds=(at,) * regions), objective)[list(cases)].mean(axis=0) for at in nearest
    ]
    best_R = np.argmax(np.stack(each) + 1e-12 * np.arange(len(nearest), 0, -1)[:, None], axis=0)
    return Decision(thresholds=tuple(nearest[step] for step in best_R))


def nested_scores(evidence: Evidence, objective: Objective) -> NDArray[np.float64]:
    """Each case's scores (cases, regions) by what the other subjects choose: what a run announces the mean of."""
    decisions = nested_decisions(evidence, objective)
    return np.stack([evidence.scores(each, objective)[number] for number, each in enumerate(decisions)])
