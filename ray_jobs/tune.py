"""Search learning rate and thresholds with Ray Tune: `python ray_jobs/tune.py --help`. A trial is a Ray Train run."""

import dataclasses
import sys
from collections.abc import Sequence

from ray_jobs.searching.cases_to_score import cases_of
from ray_jobs.searching.search_config import SearchConfig
from ray_jobs.searching.space import is_argument, set_fields
from ray_jobs.settings.command import parse_over_preset
from ray_jobs.settings.config import TrainConfig, environment_default
from ray_jobs.settings.console import open_console
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.input_check import check_input, check_place

# What the first screen of --help leaves out.
SELDOM = ("--grace-epochs", "--max-concurrent", "--search-seed", "--split", "--threshold-steps", "--precision")


def search_over(base: TrainConfig) -> SearchConfig:
    """On a cluster a trial has one worker, unless --workers gives it more: more trials at once, sooner learnt from."""
    return SearchConfig(training=dataclasses.replace(base, workers=1) if environment_default("WORKERS") else base)


def main(arguments: Sequence[str]) -> int:
    """Run the search the command line describes; return the exit status: 1 where no trial came to a score."""
    search = parse_over_preset(arguments, search_over, SearchConfig, seldom=SELDOM)
    if search.search == "threshold":
        check_place(search.training)
        checkpoint, store = search.to_score()
        case_ids = cases_of(store, search.split, checkpoint)
        # PyTorch, DALI and Ray take seconds to import: not before the command line stands.
        from ray_jobs.searching.job import search_thresholds

        return search_thresholds(search, case_ids, open_console())
    check_input(search.training)
    for name, domain in search.domains().items():
        if is_argument(name, search.training):
            for value in domain.examples:
                check_input(set_fields(search.training, {name: value}))
    from ray_jobs.searching.job import search_fields

    return search_fields(search, open_console())


if __name__ == "__main__":
    sys.exit(run_command(main))
