"""Scoring from its checked settings to the report: pairs found by name, scored side by side, written as they are done.

On a cluster workers all over it score; on one machine threads of this process do, since to start Ray would take longer
than to score some dozens of cases.
"""

from functools import partial

from rich.console import Console

from ray_jobs.on_ray.address import on_a_cluster
from ray_jobs.on_ray.cores import share_of_cores
from ray_jobs.on_ray.outcome import in_threads
from ray_jobs.predicting.case_by_case import CasesToDo, OutcomesOf, Words
from ray_jobs.predicting.conclusion import do_and_report
from ray_jobs.predicting.folder import CaseFolder
from ray_jobs.predicting.pair_scores import MakeScorer
from ray_jobs.predicting.pairs import Pairs
from ray_jobs.predicting.score_config import ScoreConfig
from scoring import RulesName, title_of
from storage.archives.kinds import place_of

SCORED = Words(doing="scoring", done="scored", none="no case could be scored", files="records")


def score_pairs(config: ScoreConfig, pairs: Pairs, rules: RulesName, folder: CaseFolder, console: Console) -> int:
    """Score every case that is still to do; return the exit status."""
    make = MakeScorer(pairs=pairs, rules=rules, trust_grid=config.trust_grid)
    if on_a_cluster():
        from ray_jobs.on_ray.ray_start import ray_running, refuse_hidden_folder, refuse_hidden_source
        from ray_jobs.on_ray.spread import spread

        with ray_running():
            if pairs.store is not None:
                refuse_hidden_folder(pairs.store, "store")
            for place in (config.prediction, config.label):
                if "://" not in place:
                    refuse_hidden_source(place_of(place))
            workers = config.workers or len(pairs.sources)
            spread_out = partial(spread, make, workers=workers, use_gpu=False)
            return _score(config, pairs, rules, folder, console, spread_out, workers)
    workers = config.workers or share_of_cores(1)
    return _score(config, pairs, rules, folder, console, partial(in_threads, make, threads=workers), workers)


def _score(
    config: ScoreConfig,
    pairs: Pairs,
    rules: RulesName,
    folder: CaseFolder,
    console: Console,
    outcomes_of: OutcomesOf,
    workers: int,
) -> int:
    identity = {
        "prediction": place_of(config.prediction),
        "label": pairs.store or place_of(config.label),
        "task": pairs.task.name,
        "rules": rules,
        "trust_grid": config.trust_grid,
    }
    cases = CasesToDo(
        sources=pairs.sources, refused=pairs.refused, identity=identity, regions=pairs.task.regions, rules=rules
    )
    said = f"{pairs.task.name} by {title_of(rules)}"
    return do_and_report(outcomes_of, cases, folder, console, words=SCORED, said=said, workers=workers)
