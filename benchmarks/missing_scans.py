"""One network for any scans: what modality dropout costs where all are there, and what it is worth where they are not.

Trained in two folds, so that every case is scored once by a network that never saw it: as usual, with the dropout, and
on some sets of scans alone. The one with the dropout is asked for each of these sets, by taking files away; all is
paired by case.
"""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.contest.job import Job, write_whole
from benchmarks.contest.methods import DROPOUT, USUAL, Method, of_scans
from benchmarks.contest.race import Race, describe_run, locked, make_jobs, phase, predict, prepare
from benchmarks.contest.settings import MissingScansBenchmark
from benchmarks.contest.table import ALL_SCANS, SETS, missing_scans_rows, read_records
from benchmarks.report import describe_origin, print_table

FOLDS = 2


def run(config: MissingScansBenchmark) -> None:
    """Do the trainings that are not done, fold by fold."""
    race = Race(source=config.source, folder=config.folder, records=config.records)
    race.records.mkdir(parents=True, exist_ok=True)
    for job in make_jobs(race, FOLDS, tested=FOLDS):
        told = replace(job, cpu_seconds=60 * config.cpu_minutes)
        measure(race, race, "usual", USUAL, told, [ALL_SCANS])
        measure(race, race, "dropout", DROPOUT, told, [ALL_SCANS, *SETS])
        for scans in SETS:
            own = replace(race, folder=config.folder / f"only-{scans}")
            measure(race, own, f"only-{scans}", of_scans(scans), replace(told, shared=str(own.shared)), [ALL_SCANS])
    for title, rows in missing_scans_rows(read_records(race.records)).items():
        print_table(title, rows)


def measure(race: Race, own: Race, name: str, method: Method, job: Job, sets: Sequence[str]) -> None:
    """Train once, segment the test cases by each set of scans, and write a record for each.

    `own` has the store that the method reads. All steps are planned by what one of the usual network costs.
    """
    run = f"fold{job.fold + 1}-{name}"
    records = {scans: race.records / f"{run}-of-{scans}.json" for scans in sets}
    if all(record.exists() for record in records.values()):
        return
    folder = race.shared.with_name(run)
    with locked(folder, wait=False) as ours:
        if not ours:
            print(f"{run} is being done by another command", flush=True)
            return
        prepared, rehearsal = prepare(race, USUAL, replace(job, shared=str(race.shared)))
        if own is not race:
            everyone = replace(job, folder=job.shared, train=(*job.train, *job.test), settings=method.settings)
            phase(method, "convert", everyone, own.shared / "converted.json")
        job = replace(job, folder=str(folder), settings={**method.settings, "rehearsal": str(rehearsal)})
        trained = phase(method, "train", job, folder / "trained.json")
        for scans, record in records.items():
            asked = job
            if scans != ALL_SCANS:
                settings = {**job.settings, "scans": scans.split("+")}
                asked = replace(job, folder=str(folder / scans), settings=settings)
                asked.path().mkdir(exist_ok=True)
                if not asked.path("weights-100").exists():
                    asked.path("weights-100").symlink_to(folder / "weights-100")
            scored = predict(race, method, asked, trained["kept"][-1])
            origin = describe_origin(f"{method.title}, fold {job.fold + 1}")
            said = describe_run(name, method, job, prepared, trained, [scored])
            write_whole(record, {**origin, **said, "scans": scans})
            print(record, flush=True)
