"""Ours, by the commands that anybody would type; run as a program by the contests.

Thresholds are 0.5 and no epoch is chosen, so that all training cases train: the test cases that a run wants for its
validation and test are scored once, at the end, and decide nothing. That scoring, Ray and all processes are counted.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contest.clock import Clock, die_with_parent
from benchmarks.contest.job import Job, run_program, write_whole
from benchmarks.contest.methods import SHARES
from benchmarks.contest.segmentations import cases_left, raw_folder
from benchmarks.page import ROOT
from ray_jobs.checkpoints.checkpoint import CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from storage import InputError, find_cases, open_store

RUN = "ours"
REHEARSED = 10
"""Steps of each epoch of the run that tells what a step and all around the steps costs; it is not counted."""
OF_BUDGET = 0.97
"""Of the CPU time the steps are planned for: a run that takes more than the budget does not count."""
EPOCHS = len(SHARES)  # each ends with a checkpoint, which is kept
_SECONDS_BETWEEN_LOOKS = 0.5


def command(job: Job, name: str, *words: str) -> list[str]:
    """One of our commands; decoded cases are kept with what is shared."""
    os.environ["XDG_CACHE_HOME"] = str(Path(job.shared).absolute() / "cache")
    return [sys.executable, str(ROOT / "ray_jobs" / f"{name}.py"), *words]


def convert(job: Job) -> Mapping[str, Any]:
    """The store, and of it the files that the peers read."""
    scans = job.settings.get("scans", ())
    only = ("--modalities", *scans) if scans else ()
    subprocess.run(command(job, "convert", "--source", job.source, "--store", job.store, *only), check=True)
    shutil.rmtree(raw_folder(job), ignore_errors=True)
    raw_folder(job).parent.mkdir(exist_ok=True)
    subprocess.run(command(job, "convert", "--store", job.store, "--to-nnunet", str(raw_folder(job))), check=True)
    return {}


def training_words(job: Job, runs: Path, steps_an_epoch: int, epochs: int) -> list[str]:
    """The training command."""
    batch = int(job.settings["batch"])
    validation, *test = job.test
    return command(
        job, "train", "--preset", "laptop", "--store", job.store, "--runs", str(runs), "--name", RUN,
        "--workers", str(job.settings["workers"]), "--sampling.seed", str(job.seed), "--epochs", str(epochs),
        "--sampling.global-batch-size", str(batch), "--sampling.patches-per-epoch", str(batch * steps_an_epoch),
        "--splits.validation-cases", validation, "--splits.test-cases", *test,
        "--validation.every", str(epochs), "--validation.no-mirror",
        "--checkpoints.every-steps", str(steps_an_epoch),
        *even_thresholds(job), *job.settings.get("flags", ()),
    )  # fmt: skip


def even_thresholds(job: Job) -> list[str]:
    """As others have them."""
    return ["--thresholds", *["0.5"] * len(open_store(job.store).task.regions)]


def prepare(job: Job) -> Mapping[str, Any]:
    """Rehearse: what a step costs, and all that is not steps. A run of so many steps needs no rehearsal."""
    if job.steps is not None:
        return {}
    runs = Path(job.shared) / "rehearsal"
    shutil.rmtree(runs, ignore_errors=True)
    clock, spent_at = Clock(), dict[int, float]()

    def note(record: CheckpointRecord) -> None:
        spent_at.setdefault(record.epoch * REHEARSED + record.step, clock.spent())

    before = clock.spent()
    follow(training_words(job, runs, REHEARSED, EPOCHS), runs / RUN, note)
    all_of_it = clock.spent() - before
    shutil.rmtree(runs)
    # Of the first epoch caches are cold, after the last one follows the scoring.
    first, last = REHEARSED, (EPOCHS - 1) * REHEARSED
    a_step = (spent_at[last] - spent_at[first]) / (last - first)
    return {"seconds_a_step": a_step, "seconds_around": all_of_it - EPOCHS * REHEARSED * a_step}


def follow(words: Sequence[str], run: Path, note: Callable[[CheckpointRecord], None]) -> None:
    """Run the training command and hand on each new checkpoint of the run as soon as it is there."""
    run.mkdir(parents=True, exist_ok=True)
    store, seen = CheckpointStore(str(run)), set[str]()
    running = subprocess.Popen(words, preexec_fn=die_with_parent)
    while running.poll() is None:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        newest = store.newest()
        if newest is not None and newest.name not in seen:
            seen.add(newest.name)
            note(newest)
    if running.returncode != 0:
        raise InputError(f"training ended with {running.returncode}, see the log")


def plan_steps(job: Job) -> int:
    """Steps of an epoch that fill the budget."""
    if job.steps is not None:
        return job.steps // EPOCHS
    assert job.cpu_seconds is not None  # a budget is one of the two
    rehearsed = json.loads(Path(job.settings["rehearsal"]).read_text())
    steps = (OF_BUDGET * job.cpu_seconds - rehearsed["seconds_around"]) / rehearsed["seconds_a_step"]
    if steps < EPOCHS:
        around = f"{rehearsed['seconds_around']:.0f} CPU-seconds"
        raise InputError(f"wanted a budget of more than the {around} that a run costs beside its steps, got less")
    return int(steps / EPOCHS)


def train(job: Job) -> Mapping[str, Any]:
    """Run the command, keeping the checkpoint at each of SHARES; after a kill it goes on, as a run does."""
    journal = job.path("journal.json")
    noted: dict[str, Any] = {"steps_an_epoch": plan_steps(job), "spent": {}, "kept": [], "starts": 0}
    if journal.exists():
        noted = json.loads(journal.read_text())
    noted["starts"] += 1
    write_whole(journal, noted)
    an_epoch, run = noted["steps_an_epoch"], job.path("runs", RUN)
    run.mkdir(parents=True, exist_ok=True)
    store = CheckpointStore(str(run))
    newest = store.newest()
    # What was spent after the newest checkpoint was lost, and is spent again.
    clock = Clock(noted["spent"].get(newest.name, 0.0) if newest else 0.0)

    def note(record: CheckpointRecord) -> None:
        noted["spent"].setdefault(record.name, clock.spent())
        done = record.epoch * an_epoch + record.step
        for due in SHARES[len(noted["kept"]) : -1]:
            if done >= due * EPOCHS * an_epoch:
                keep(run / record.name, job.path(f"weights-{round(100 * due)}"))
                noted["kept"].append({"share": due, "steps": done, "cpu_seconds": clock.spent()})
        write_whole(journal, noted)

    follow(training_words(job, run.parent, an_epoch, EPOCHS), run, note)
    spent, kept = clock.spent(), noted["kept"]
    steps = EPOCHS * an_epoch
    best = store.best()
    assert best is not None  # of a run that has ended
    keep(run / best.name, job.path("weights-100"))
    kept.append({"share": 1.0, "steps": steps, "cpu_seconds": spent})
    sizes = json.loads((run / "config.json").read_text())["sampling"]
    computed_in = json.loads((run / best.name / "config.json").read_text())["made_with"]["precision"]
    told = f"{'x'.join(map(str, sizes['patch_shape']))}, batch {sizes['global_batch_size']}, {computed_in}"
    return {"steps": steps, "cpu_seconds": spent, "starts": noted["starts"], "kept": kept, "sizes": told}


def keep(checkpoint: Path, target: Path) -> None:
    """Copy a checkpoint, whole or not at all."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(checkpoint, unfinished)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def predict(job: Job) -> Mapping[str, Any]:
    """The command over the test cases' scans."""
    share = job.settings["share"]
    output, scans = job.path("written"), job.path("scans")
    shutil.rmtree(scans, ignore_errors=True)
    link_scans(job, scans)
    words = [
        *("--checkpoint", str(job.path(f"weights-{round(100 * share)}")), "--input", str(scans)),
        *("--output", str(output), "--no-figures", "--inference.mirror", str(bool(job.settings["mirror"]))),
        *("--workers", str(job.settings["workers"]), *even_thresholds(job), *job.settings.get("inference", ())),
    ]
    shutil.rmtree(output, ignore_errors=True)
    subprocess.run(command(job, "predict", *words), check=True)
    for case_id, file in cases_left(job, job.predictions(share)).items():
        file.parent.mkdir(exist_ok=True)
        (output / f"{case_id}_seg.nii.gz").rename(file)
    return {}


def link_scans(job: Job, folder: Path) -> None:
    """The test cases without their labels, and without the scans that are not to be seen."""
    wanted: Sequence[str] = job.test
    for case in find_cases(Path(job.source)).cases:
        if case.case_id in wanted:
            (folder / case.case_id).mkdir(parents=True)
            seen = job.settings.get("scans") or case.files
            for file in (case.files[name] for name in seen):
                (folder / case.case_id / Path(str(file)).name).symlink_to(Path(str(file)).resolve())


if __name__ == "__main__":
    run_program({"convert": convert, "prepare": prepare, "train": train, "predict": predict})
