"""Measure: `python -m benchmarks --help`. Each benchmark prints a table; --json FILE keeps its figures."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import tyro

from benchmarks import settings
from benchmarks.contest import settings as contest
from benchmarks.gpu_checks.settings import GpuCheck
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from storage.store.objects import refuse_unwritable

# Each is a module of this package, which is imported when it is to run and no sooner: torch alone takes seconds.
BENCHMARKS: dict[str, Callable[..., object]] = {
    "convert": settings.ConvertBenchmark,
    "archives": settings.ArchivesBenchmark,
    "store-reads": settings.StoreReadsBenchmark,
    "loader": settings.LoaderBenchmark,
    "peers-loader": settings.PeersLoaderBenchmark,
    "train-step": settings.TrainStepBenchmark,
    "inference": settings.InferenceBenchmark,
    "whole-head": settings.WholeHeadBenchmark,
    "prediction": settings.PredictionBenchmark,
    "score": settings.ScoreBenchmark,
    "decisions": settings.DecisionsBenchmark,
    "accuracy": contest.AccuracyBenchmark,
    "parity": contest.ParityBenchmark,
    "missing-scans": contest.MissingScansBenchmark,
    "laptop-trials": contest.LaptopTrialsBenchmark,
    "end-to-end": settings.EndToEndBenchmark,
    "cpu-table": settings.CpuTableBenchmark,
    "memory": settings.MemoryBenchmark,
    "growth": settings.GrowthBenchmark,
    "processes": settings.ProcessesBenchmark,
    "demo": settings.DemoBenchmark,
    "demo-seeds": settings.DemoSeedsBenchmark,
    "installation": settings.InstallationBenchmark,
    "gpu-check": GpuCheck,
    "laptop": settings.Laptop,
    "bars": settings.Bars,
    "page": settings.Page,
}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark that the command line names; return the exit status."""
    chosen = parse(arguments)
    record: Path | None = getattr(chosen, "json", None)
    if record is not None:
        refuse_unwritable(record.parent)
    # As in the Makefile: with it ten processes of each command would compile anew what they import.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    (name,) = (name for name, kind in BENCHMARKS.items() if type(chosen) is kind)
    passed = import_module(f"benchmarks.{name.replace('-', '_')}").run(chosen)
    return 1 if passed is False else 0  # only checks can fail; what measures returns nothing


def parse(arguments: Sequence[str]) -> object:
    """Return the settings of the benchmark that the command line names."""
    read = tyro.extras.subcommand_cli_from_dict
    return read_flags(BENCHMARKS, arguments, read=read, prog="python -m benchmarks", description=__doc__)


if __name__ == "__main__":
    sys.exit(run_command(main))
