"""Scores of 2026 beside `brats-evaluate`, the organisers' program: what each costs, and whether all numbers agree.

Whole programs are measured, for one case and for several, turn about in one run. Predictions are the labels bent, with
false lesions among them: `python -m benchmarks score --source DIR`
"""

import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.cost import Cost, time_program
from benchmarks.page import ROOT
from benchmarks.peer_brats_evaluate import CONFIGURATIONS, evaluate_words, read_scores
from benchmarks.report import report
from benchmarks.settings import ScoreBenchmark
from ray_jobs.evaluation.case_scores import score_of
from scoring.components import find_box
from storage import TASKS, InputError, find_cases
from storage.scans.nifti import read_segmentation
from storage.scans.phantom import make_phantom
from storage.scans.task_detection import read_label_values, settle_tasks

SLICES = 155
OUTPUT, METRICS = "ours", "metrics.json"
Labels = NDArray[np.uint8]
Scores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By case, region and name."""

# Where outlines are bent: steps of some voxels, drawn at every so many voxels and interpolated between.
_KNOTS, _MOST, _FALSE = 20, 3, 4


def run(config: ScoreBenchmark) -> None:
    """Score the same pairs with both programs."""
    program = config.program.absolute()
    if not program.exists():
        raise InputError(
            f"wanted brats-evaluate at {config.program}, found none; type `make .venv-score/.installed`, or name it "
            "with --program"
        )
    if config.task not in CONFIGURATIONS:
        raise InputError(f"wanted a task that brats-evaluate has, {', '.join(CONFIGURATIONS)}; got {config.task}")
    with tempfile.TemporaryDirectory() as folder:
        one, several = Path(folder) / "one", Path(folder) / "several"
        sides, cases = write_pairs(several, config)
        for which in ("label", "prediction"):
            (one / which).mkdir(parents=True)
            shutil.copy(sorted((several / which).iterdir())[0], one / which)
        contenders: dict[str, Callable[[Path], list[str]]] = {
            "brats-evaluate 0.0.10": lambda pairs: evaluate_words(program, pairs, config.task),
            "ray_jobs/score.py": lambda pairs: command_words(pairs, fresh_output(pairs), config.task),
        }
        costs: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in contenders}
        for _ in range(config.rounds):
            for name, words in contenders.items():
                costs[name].append((time_program(words(one)), time_program(words(several))))
        records = json.loads((several / OUTPUT / METRICS).read_text())["cases"]
        compared, differing = compare(read_scores(program, several, config.task), records)
    for line in differing[:10]:
        print(line)
    title = f"Scores of 2026, {config.task}, {cases} cases of {sides}: of {compared} numbers {len(differing)} differ"
    report(title, as_rows(costs, cases), config.json)


def fresh_output(pairs: Path) -> Path:
    """Where the command finds nothing that was done before."""
    shutil.rmtree(pairs / OUTPUT, ignore_errors=True)
    return pairs / OUTPUT


def command_words(pairs: Path, output: Path, task: str) -> list[str]:
    """The command that anybody would type on one machine."""
    return [
        *(sys.executable, str(ROOT / "ray_jobs/score.py"), "--rules", "2026", "--task", task, "--output", str(output)),
        *("--prediction", str(pairs / "prediction"), "--label", str(pairs / "label")),
    ]


def as_rows(costs: Mapping[str, Sequence[tuple[Cost, Cost]]], cases: int) -> list[dict[str, str | float]]:
    """The least of each program, for one case, for all, and for each after the first; the first is compared with."""
    rows: list[dict[str, str | float]] = []
    theirs: dict[str, float] = {}
    for name, rounds in costs.items():
        one, all_of_them = (min(cost.cpu for cost in each) for each in zip(*rounds, strict=True))
        seconds = {"1 case": one, f"{cases} cases": all_of_them, "a further case": (all_of_them - one) / (cases - 1)}
        theirs = theirs or seconds
        rows.append(
            {"what": name}
            | {f"CPU s, {what}": value for what, value in seconds.items()}
            | {f"times faster, {what}": theirs[what] / value for what, value in seconds.items()}
        )
    return rows


def write_pairs(folder: Path, config: ScoreBenchmark) -> tuple[str, int]:
    """Write labels and predictions in the task's values under names that brats-evaluate takes; say their sides."""
    task, sides, cases = TASKS[config.task], "", 0
    for which in ("label", "prediction"):
        (folder / which).mkdir(parents=True)
    for stored_DHW in islice(read_labels(config.source) if config.source else draw_labels(config.task), config.cases):
        bent_DHW = bend(stored_DHW, np.random.default_rng(cases))
        for which, label_DHW in (("label", stored_DHW), ("prediction", bent_DHW)):
            image = nib.Nifti1Image(task.convention.to_source(label_DHW).T, np.diag([-1.0, -1.0, 1.0, 1.0]))
            nib.save(image, folder / which / f"BraTS-GLI-{cases:05d}-000.nii.gz")
        sides, cases = "x".join(map(str, reversed(stored_DHW.shape))), cases + 1
    if cases < 2:
        raise InputError(f"wanted two labelled cases in {config.source} and --cases 2 at least, got {cases}")
    return sides, cases


def read_labels(source: Path) -> Iterator[Labels]:
    """The stored labels of the cases in a folder."""
    found = find_cases(source).cases
    for case in settle_tasks(found, {case.case_id: read_label_values(case) for case in found}).cases:
        if case.label is not None and case.convention is not None:
            yield case.convention.to_stored(read_segmentation(case.label).array.T)


def draw_labels(task: str) -> Iterator[Labels]:
    """The stored labels of phantoms."""
    for number in count(1):
        label_XYZ = make_phantom(np.random.default_rng([0, number]), TASKS[task], number, spacing_mm=1.0).label_XYZ
        yield TASKS[task].convention.to_stored(label_XYZ[:, :, :SLICES].T)


def bend(label_DHW: Labels, rng: np.random.Generator) -> Labels:
    """The map as a network might predict it: outlines bent by up to some voxels, and a few small false lesions."""
    box = find_box(label_DHW > 0, 2 * _MOST)
    within = label_DHW[box]
    knots = [length // _KNOTS + 2 for length in within.shape]
    taken = []
    for at, length in zip(np.indices(within.shape), within.shape, strict=True):
        steps = ndimage.zoom(rng.normal(0, _MOST / 2, knots).clip(-_MOST, _MOST), _KNOTS, order=1)
        taken.append(np.rint(at + steps[tuple(map(slice, within.shape))]).astype(int).clip(0, length - 1))
    bent = np.zeros_like(label_DHW)
    bent[box] = within[tuple(taken)]
    labels = np.unique(within[within > 0])
    for _ in range(_FALSE):
        side = int(rng.integers(1, 5))
        corner = [int(rng.integers(0, length - side)) for length in within.shape]
        bent[box][tuple(slice(start, start + side) for start in corner)] = rng.choice(labels)
    return bent


def compare(theirs: Scores, records: Sequence[Mapping[str, Any]]) -> tuple[int, list[str]]:
    """How many numbers theirs are, and a line for each that ours does not equal."""
    compared, differing = 0, []
    record_of = {record["case_id"]: record for record in records}
    for case, of_case in theirs.items():
        for region, of_region in of_case.items():
            for name, value in of_region.items():
                got, compared = score_of(record_of[case], region, name), compared + 1
                tolerance = 1e-6 if "hd95" in name else 1e-7 if "surface" in name else 1e-12
                both_none = math.isnan(got) and math.isnan(value)
                if not both_none and not math.isclose(got, value, rel_tol=0, abs_tol=tolerance):
                    differing.append(f"{case} {region} {name}: {got}, brats-evaluate says {value}")
    return compared, differing
