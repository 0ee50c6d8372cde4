"""Accuracy after equal CPU time: ours, nnU-Net v2 and MONAI on the same cases, scored by one scorer.

Each run is a record of its own in benchmarks/records/accuracy, written when it is done; the page makes a table of those
that are there. Counted is all that training starts, from its first import on; conversion and preprocessing are counted
apart, and so is prediction.
"""

from dataclasses import replace
from importlib.util import find_spec

from benchmarks.contest.methods import METHODS
from benchmarks.contest.race import Race, compete, make_jobs
from benchmarks.contest.settings import AccuracyBenchmark
from benchmarks.contest.table import accuracy_rows, read_records
from benchmarks.report import print_table
from storage import InputError


def run(config: AccuracyBenchmark) -> None:
    """Do the runs that are not done, shortest budgets first; one that fails is named and the others go on."""
    unknown = [name for name in config.methods if name not in METHODS]
    if unknown:
        raise InputError(f"--methods: wanted some of {', '.join(METHODS)}, got {', '.join(unknown)}")
    race, failed = Race(source=config.source, folder=config.folder, records=config.records), []
    race.records.mkdir(parents=True, exist_ok=True)
    jobs = make_jobs(race, config.splits)
    for minutes in sorted(config.cpu_minutes):
        for job in jobs:
            for name in config.methods or METHODS:
                if find_spec(METHODS[name].needs) is None:
                    print(f"{name} is left out: {METHODS[name].needs} is not installed")
                    continue
                told = replace(job, cpu_seconds=60 * minutes, short_too=config.short_too)
                try:
                    done = compete(race, name, METHODS[name], told, f"{minutes:g}min-split{job.fold + 1}-{name}")
                except InputError as error:
                    failed.append(str(error))
                    print(error, flush=True)
                    continue
                print(f"{done}" if done else f"{name} is being done by another command", flush=True)
    for title, rows in accuracy_rows(read_records(race.records)).items():
        print_table(title, rows)
    if failed:
        raise InputError(f"{len(failed)} runs failed, the first: {failed[0]}; the same command tries them again")
