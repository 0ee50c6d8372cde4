"""Runs of a contest one after the other: prepared once, trained, predicted, scored, recorded; what is there is kept.

Killed at any moment, the same command goes on; two commands may do different runs side by side.
"""

import fcntl
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.contest.clock import run_counted
from benchmarks.contest.job import Job, write_whole
from benchmarks.contest.methods import Method
from benchmarks.page import ROOT
from benchmarks.report import describe_origin
from ray_jobs.predicting.conclusion import METRICS
from storage import InputError, find_cases

TESTED = 4  # one case of so many tests


@dataclass(frozen=True, kw_only=True)
class Race:
    """What all runs of a command share."""

    source: Path
    folder: Path
    records: Path

    @property
    def shared(self) -> Path:
        """What is prepared once."""
        return (self.folder / self.source.resolve().name / "shared").absolute()


def deal_splits(
    case_ids: Sequence[str], splits: int, *, tested: int = TESTED, seed: int = 0
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Cases that train and cases that test, one of `tested`, for each split; no case tests twice."""
    dealt = Random(seed).sample(sorted(case_ids), len(case_ids))
    part = len(dealt) // tested
    if not part or splits > tested:
        raise InputError(f"wanted at least {tested} cases and at most {tested} splits, got {len(dealt)} and {splits}")
    tests = [tuple(sorted(dealt[part * index : part * (index + 1)])) for index in range(splits)]
    return [(tuple(sorted(set(dealt) - set(test))), test) for test in tests]


def make_jobs(race: Race, splits: int, *, tested: int = TESTED) -> list[Job]:
    """A job for each split, of which one case of `tested` tests; without method and budget."""
    names = [case.case_id for case in find_cases(race.source).cases if case.label is not None]
    shared, source = str(race.shared), str(race.source.absolute())
    return [
        Job(folder="", shared=shared, source=source, fold=index, train=train, test=test)
        for index, (train, test) in enumerate(deal_splits(names, splits, tested=tested))
    ]


def compete(race: Race, name: str, method: Method, job: Job, run: str) -> Path | None:
    """Do what is left of one run and return its record; None while another command does it."""
    record = race.records / f"{run}.json"
    if record.exists():
        return record
    folder = race.shared.with_name(run)
    with locked(folder, wait=False) as ours:
        if not ours:
            return None
        if method.borrows is not None:
            borrow_weights(folder.with_name(run.replace(f"-{name}", f"-{method.borrows}", 1)), folder)
        prepared = prepare(race, method, job)
        told: dict[str, Any] = {**method.settings, "rehearsal": str(prepared[1])}
        job = replace(job, folder=str(folder), settings=told)
        if method.program != "ours":
            rehearsed = phase(method, "rehearse", job, race.shared / f"rehearsed-{name}.json")
            job = replace(job, settings={**told, "channels_last": rehearsed["channels_last"]})
        trained = phase(method, "train", job, folder / "trained.json")
        curve = [] if trained.get("short") else [predict(race, method, job, kept) for kept in trained["kept"]]
        origin = describe_origin(f"{method.title}, split {job.fold + 1}")
        write_whole(record, {**origin, **describe_run(name, method, job, prepared[0], trained, curve)})
    return record


def borrow_weights(lender: Path, folder: Path) -> None:
    """Have a run, which differs in how it predicts, begin with what another has trained. Raises InputError for none."""
    if not (lender / "trained.json").exists():
        raise InputError(f"{lender.name} has to be trained first: no weights in {lender}")
    for name in ("trained.json", *(weights.name for weights in lender.glob("weights-*"))):
        if not (folder / name).exists():
            (folder / name).symlink_to(lender / name)


def prepare(race: Race, method: Method, job: Job) -> tuple[Mapping[str, Any], Path]:
    """Convert for all and prepare for this method's program, once; what it took, and the file that says so."""
    with locked(race.shared, wait=True):
        everyone = replace(job, folder=str(race.shared), train=(*job.train, *job.test), settings=method.settings)
        converter = Method(title="conversion", program="ours", settings=method.settings)
        phase(converter, "convert", everyone, race.shared / "converted.json")
        # Ours rehearses what it is told: another method of the same program takes other steps.
        told = {name: value for name, value in method.settings.items() if name != "inference"}
        name = digest(told) if method.program == "ours" else method.program
        file = race.shared / f"prepared-{name}.json"
        own = replace(everyone, train=job.train, test=job.test) if method.program == "ours" else everyone
        return phase(method, "prepare", own, file), file


def predict(race: Race, method: Method, job: Job, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Segment the test cases with the weights of one moment, and score them. Mirrored at the end alone, if at all."""
    percent, mirrored = round(100 * kept["share"]), kept["share"] == 1.0 and job.settings.get("mirror", True)
    told = {**job.settings, "share": kept["share"], "mirror": mirrored}
    predicted = phase(method, "predict", replace(job, settings=told), job.path(f"predicted-{percent}.json"))
    scores = score(job, job.predictions(kept["share"]), job.path(f"scores-{percent}"))
    return {**kept, "mirrored": mirrored, "predict_cpu_seconds": predicted["cpu_seconds"], "cases": scores}


def score(job: Job, predictions: Path, output: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Dice and IoU of each case and region, by plain rules: our scorer for everybody's files."""
    words = ["--prediction", str(predictions), "--label", job.store, "--rules", "plain", "--output", str(output)]
    done = subprocess.run([sys.executable, str(ROOT / "ray_jobs/score.py"), *words], capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise InputError(f"{predictions} could not be scored: {done.stderr.strip()[-500:]}")
    records = {each["case_id"]: each["regions"] for each in json.loads((output / METRICS).read_text())["cases"]}
    missing = sorted(set(job.test) - set(records))
    if missing:
        raise InputError(f"wanted scores of all test cases, {', '.join(missing)} have none; see {output}")
    return {
        case_id: {region: {name: own[name] for name in ("dice", "iou")} for region, own in records[case_id].items()}
        for case_id in job.test
    }


def describe_run(
    name: str,
    method: Method,
    job: Job,
    prepared: Mapping[str, Any],
    trained: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The record: what was done, for how long, and every score."""
    budget = {"cpu_minutes": job.cpu_seconds / 60} if job.cpu_seconds is not None else {"steps": job.steps}
    within = job.cpu_seconds is None or trained["cpu_seconds"] <= 1.05 * job.cpu_seconds
    return {
        "method": name,
        "method_title": method.title if method.needs == "torch" else f"{method.title} ({version(method.needs)})",
        "settings": {**job.settings, "rehearsal": "", "sizes": trained.get("sizes", "")},
        "budget": budget,
        "seed": job.seed,
        "split": {"index": job.fold, "train": job.train, "test": job.test},
        "steps": trained["steps"],
        "short": bool(trained.get("short")),
        "within_budget": within,
        "cpu_seconds": {"prepare": prepared["cpu_seconds"], "train": trained["cpu_seconds"]},
        "counted_by": trained["counted_by"],
        "starts": trained.get("starts", 1),
        "curve": list(curve),
    }


def phase(method: Method, name: str, job: Job, result: Path) -> dict[str, Any]:
    """Run a phase of the method's program unless it has been; return what it said."""
    if not result.exists():
        file, log = result.with_suffix(".job"), result.with_suffix(".log")
        job.write(file)
        words = [sys.executable, "-m", f"benchmarks.contest.{method.program}", name, str(file), str(result)]
        status = run_counted(words, name=digest(str(result)), log=log, cwd=ROOT)
        if status != 0 or not result.exists():
            said = log.read_text(errors="replace").strip().splitlines()
            raise InputError(f"{method.title}, {name} ended with {status}, see {log}: {said[-1] if said else ''}")
    values: dict[str, Any] = json.loads(result.read_text())
    return values


def digest(value: object) -> str:
    """Eight digits that are the same for the same value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the folder against other commands; says whether it is held, which it is not where one has it already."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
