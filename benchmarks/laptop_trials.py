"""A change of the preset `laptop`, by flags of train.py: scores out of fold, paired by case with the preset as it is.

Each fold is a record of its own. Two commands side by side do different folds.

`python -m benchmarks laptop-trials --source DIR --name faster --flags="--optimiser.learning-rate 6e-3"`
`python -m benchmarks laptop-trials --source DIR --name whole-head --inference="--inference.whole True"`
"""

import shlex
from dataclasses import replace

from benchmarks.contest.methods import with_flags
from benchmarks.contest.race import Race, compete, make_jobs
from benchmarks.contest.settings import AS_IT_IS, LaptopTrialsBenchmark
from benchmarks.contest.table import read_records, trial_rows
from benchmarks.report import print_table
from storage import InputError

TOLD = ("flags", "batch", "inference")


def run(config: LaptopTrialsBenchmark) -> None:
    """Do the folds of this change that are not done, and table all changes that have a record."""
    retrained, predicted = bool(config.flags) or config.batch != LaptopTrialsBenchmark.batch, bool(config.inference)
    if (config.name == AS_IT_IS) == (retrained or predicted) or (retrained and predicted):
        told = f"{config.name!r}, {config.flags!r}, {config.inference!r}, {config.batch} patches a step"
        raise InputError(f"wanted --flags or --inference and a --name for them, or none of these, got {told}")
    method = with_flags(
        f"laptop, {config.flags or config.inference or 'as it is'}",
        *shlex.split(config.flags),
        batch=config.batch,
        inference=shlex.split(config.inference),
    )
    race = Race(source=config.source, folder=config.folder, records=config.records)
    race.records.mkdir(parents=True, exist_ok=True)
    for record in read_records(race.records):
        before = record["settings"]
        if record["method"] == config.name and any(before.get(key, []) != method.settings.get(key, []) for key in TOLD):
            raise InputError(
                f"{config.name!r} has records of another change, {record['method_title']}: take a new --name"
            )
    for job in make_jobs(race, config.folds, tested=config.folds):
        budgeted = replace(job, cpu_seconds=60 * config.cpu_minutes)
        run_name = f"{config.cpu_minutes:g}min-{config.name}-fold{job.fold + 1}of{config.folds}"
        print(compete(race, config.name, method, budgeted, run_name) or f"{run_name} is being done by another command")
    for title, rows in trial_rows(read_records(race.records)).items():
        print_table(title, rows)
