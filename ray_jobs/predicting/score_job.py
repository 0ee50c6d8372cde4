"""Scoring from its checked settings to the report: pairs found by name, scored over the cluster, written as done."""

from rich.console import Console

from ray_jobs.on_ray.ray_start import most_workers, refuse_hidden_folder, refuse_hidden_source
from ray_jobs.predicting.case_by_case import CasesToDo, do_cases
from ray_jobs.predicting.conclusion import Words, conclude
from ray_jobs.predicting.folder import CaseFolder
from ray_jobs.predicting.pair_scores import MakeScorer
from ray_jobs.predicting.pairs import Pairs
from ray_jobs.predicting.score_config import ScoreConfig
from scoring import RulesName, title_of
from storage.archives.kinds import place_of

SCORED = Words(done="scored", none="no case could be scored", files="records")


def score_pairs(config: ScoreConfig, pairs: Pairs, rules: RulesName, folder: CaseFolder, console: Console) -> int:
    """Score every case that is still to do, where Ray runs; return the exit status."""
    if pairs.store is not None:
        refuse_hidden_folder(pairs.store, "store")
    for place in (config.prediction, config.label):
        if "://" not in place:
            refuse_hidden_source(place_of(place))
    identity = {
        "prediction": place_of(config.prediction),
        "label": pairs.store or place_of(config.label),
        "task": pairs.task.name,
        "rules": rules,
        "trust_grid": config.trust_grid,
    }
    folder.claim(identity)
    with folder.only_writer():
        make = MakeScorer(pairs=pairs, rules=rules, trust_grid=config.trust_grid)
        cases = CasesToDo(sources=pairs.sources, refused=pairs.refused, identity=identity)
        done, refused = do_cases(
            make,
            cases,
            folder,
            console,
            doing="scoring",
            said=f"{pairs.task.name} by {title_of(rules)}",
            workers=config.workers or most_workers(use_gpu=False) or len(pairs.sources),
            use_gpu=False,
        )
        return conclude(
            folder,
            done,
            refused,
            identity,
            console,
            regions=pairs.task.regions,
            rules=rules,
            notices=(),
            words=SCORED,
        )
