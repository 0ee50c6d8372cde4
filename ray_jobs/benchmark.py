"""Measure: `python ray_jobs/benchmark.py --help`. Each benchmark prints a table; --json FILE keeps its figures."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from ray_jobs.settings.exit_status import run_command


def benchmarks() -> dict[str, Callable[[Any], None]]:
    """Return each benchmark's command. Each takes one typed configuration."""
    from benchmarks import (
        convert,
        end_to_end,
        inference,
        loader,
        network_check,
        peers_loader,
        resume,
        scaling,
        store_reads,
        threshold_search,
        train_step,
    )

    return {
        "convert": convert.run,
        "storage": store_reads.run,
        "loader": loader.run,
        "peers-loader": peers_loader.run,
        "train-step": train_step.run,
        "inference": inference.run,
        "end-to-end": end_to_end.run,
        "threshold-search": threshold_search.run,
        "resume": resume.run,
        "scaling": scaling.run,
        "network-check": network_check.run,
    }


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark the command line names; return the exit status."""
    tyro.extras.subcommand_cli_from_dict(benchmarks(), args=list(arguments), config=(tyro.conf.OmitArgPrefixes,))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
