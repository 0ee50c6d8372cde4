"""Ours beside nnU-Net v2's trainer, by training: the same small network, patches, batch, loss, optimiser, schedule and
steps, each with its own code for all of them, its own augmentation and its own prediction; pairs by seed and case.

That losses, gradients and normalised scans are the same to begin with is a test: tests/models/test_against_nnunet.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from statistics import mean

from scipy import stats

from benchmarks.contest.methods import PARITY
from benchmarks.contest.race import Race, compete, make_jobs
from benchmarks.contest.table import Record, Rows, mean_of, read_records
from benchmarks.report import print_table
from benchmarks.settings import ParityBenchmark
from storage import InputError

OURS, THEIRS = PARITY


def run(config: ParityBenchmark) -> None:
    """Do the trainings that are not done, a pair for each seed."""
    if find_spec("nnunetv2") is None:
        raise InputError("parity wants nnunetv2 beside this project; `make .venv-bench/.installed` makes a place for both")
    race = Race(source=config.source, folder=config.folder, records=config.records)
    race.records.mkdir(parents=True, exist_ok=True)
    job = make_jobs(race, 1)[0]
    for seed in range(config.seeds):
        for name, method in PARITY.items():
            told = replace(job, steps=config.steps, seed=seed)
            print(compete(race, name, method, told, f"{config.steps}steps-seed{seed}-{name}"), flush=True)
    for title, rows in parity_rows(read_records(race.records)).items():
        print_table(title, rows)


def parity_rows(records: Sequence[Record]) -> dict[str, Rows]:
    """A row for each seed that both have done, then their difference with its interval over seeds and cases."""
    runs = {(run["seed"], run["method"]): run for run in records}
    seeds = sorted({seed for seed, _ in runs if {(seed, OURS), (seed, THEIRS)} <= set(runs)})
    if not seeds:
        return {}
    pairs = [(runs[seed, OURS]["curve"][-1]["cases"], runs[seed, THEIRS]["curve"][-1]["cases"]) for seed in seeds]
    rows: Rows = [
        {"seed": seed, "ours, Dice": mean_of(ours, "dice"), "nnU-Net v2, Dice": mean_of(theirs, "dice")}
        for seed, (ours, theirs) in zip(seeds, pairs, strict=True)
    ]
    for row in rows:
        row["difference"] = float(row["ours, Dice"]) - float(row["nnU-Net v2, Dice"])
    differences = [
        mean_of({case: ours[case]}, "dice") - mean_of({case: theirs[case]}, "dice")
        for ours, theirs in pairs
        for case in ours
    ]
    half = float(stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1))
    middle = mean(differences)
    said = f"{middle:+.3f}, 95% from {middle - half:+.3f} to {middle + half:+.3f}, {len(differences)} pairs"
    return {f"Trained by ours and by nnU-Net v2 for {runs[seeds[0], OURS]['steps']} steps: {said}": rows}
