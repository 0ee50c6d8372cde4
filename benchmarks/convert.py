"""What converting a case costs: CPU time, bytes stored and peak memory; and nnU-Net v2's own preprocessing.

Every row is measured in a process of its own with one worker, but the last: the command as it is typed, on all cores.
"""

import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.cost import conversion_figures, time_call, time_program
from benchmarks.page import ROOT
from benchmarks.report import report
from benchmarks.settings import ConvertBenchmark
from storage.errors import InputError
from storage.scans.case import Case
from storage.scans.case_search import find_cases
from storage.store.case_conversion import convert_case
from storage.store.cohort_store import create_store

ROUNDS = 3
OURS = "ours: zstd 1, byte shuffle, 1 MiB blocks, chunks to 96, sharded"


def run(config: ConvertBenchmark) -> None:
    """Convert with ours, then with nnU-Net where there is a Python that has it."""
    everything = find_cases(config.source).cases
    found = everything[: config.cases]
    if not found:
        raise InputError(f"wanted BraTS cases below {config.source}, found none; name the unpacked folder")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        rows: list[dict[str, str | float]] = [{"what": OURS, **process.submit(convert_all, list(found)).result()}]
    if config.peer_python is not None:
        rows.append({"what": "nnU-Net v2 preprocessing", **run_nnunet(config.peer_python, found)})
    rows.append(run_command(config.source, cases=len(everything)))
    report(f"Conversion of {len(found)} cases with one worker", rows, config.json)


def run_command(source: Path, *, cases: int) -> dict[str, str | float]:
    """What convert.py takes for all of the source, with its start and its imports; the fastest of three rounds."""
    convert = [sys.executable, str(ROOT / "ray_jobs" / "convert.py"), "--source", str(source), "--store"]
    with tempfile.TemporaryDirectory() as folder:
        costs = [time_program([*convert, str(Path(folder) / str(round))]) for round in range(ROUNDS)]
    best = min(costs, key=lambda cost: cost.wall)
    figures = {"CPU-s per case": best.cpu / cases, "wall-s per case": best.wall / cases, "cases": cases}
    return {"what": "ours, the whole command on all cores", **figures}


def run_nnunet(python: Path, cases: Sequence[Case]) -> dict[str, float]:
    """The same figures, of nnU-Net v2's preprocessing."""
    folders = [str(Path(str(next(iter(case.files.values())).parent)).resolve()) for case in cases]
    words = [str(python.absolute()), "-m", "benchmarks.peer_nnunet", *folders]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"{python} cannot run nnU-Net: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def convert_all(cases: Sequence[Case]) -> dict[str, float]:
    """Convert `cases` into a store that is then thrown away; the first once before, so that imports do not count."""
    with tempfile.TemporaryDirectory() as folder:
        store = create_store(Path(folder) / "store")
        convert_case(cases[0], store)
        cost = time_call(lambda: [convert_case(case, store) for case in cases])
        files = [path for path in (Path(folder) / "store" / "cases").rglob("*/*") if path.is_file()]
        return conversion_figures(cost, files, cases=len(cases))
