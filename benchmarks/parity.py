"""Ours beside nnU-Net v2's trainer, by training: the same small network, patches, batch, loss, optimiser, schedule and
steps, each with its own code for all of them, its own augmentation and its own prediction; pairs by seed and case.

That losses, gradients and normalised scans are the same to begin with is a test: tests/models/test_against_nnunet.py.
"""

from dataclasses import replace
from importlib.util import find_spec

from benchmarks.contest.methods import PARITY
from benchmarks.contest.race import Race, compete, make_jobs
from benchmarks.contest.settings import ParityBenchmark
from benchmarks.contest.table import parity_rows, read_records
from benchmarks.report import print_table
from storage import InputError


def run(config: ParityBenchmark) -> None:
    """Do the trainings that are not done, a pair for each seed."""
    if find_spec("nnunetv2") is None:
        raise InputError("wanted nnunetv2 beside this project, found none; `make .venv-bench/.installed` installs both")
    race = Race(source=config.source, folder=config.folder, records=config.records)
    race.records.mkdir(parents=True, exist_ok=True)
    job = make_jobs(race, 1)[0]
    for seed in range(config.seeds):
        for name, method in PARITY.items():
            told = replace(job, steps=config.steps, seed=seed)
            print(compete(race, name, method, told, f"{config.steps}steps-seed{seed}-{name}"), flush=True)
    for title, rows in parity_rows(read_records(race.records)).items():
        print_table(title, rows)
