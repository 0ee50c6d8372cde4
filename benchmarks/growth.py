"""What grows with a cohort and with a search, at three sizes and as a formula: `python -m benchmarks growth`.

Cases have 8 voxels a side: a case's own cost is the convert benchmark's, here it is what many cases add. Each size has
a process of its own.
"""

import multiprocessing
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
from rich.console import Console

from benchmarks.cost import time_call
from benchmarks.report import report
from benchmarks.settings import GrowthBenchmark
from storage import open_store
from storage.store.index import ROOT_KEY

_SIDE = 8
_ENDINGS = ("t1n", "t1c", "t2w", "t2f", "seg")

Figures = dict[str, float]


def run(config: GrowthBenchmark) -> None:
    """Measure each size of both, and print what follows."""
    from benchmarks.growth_of_search import measure_search

    rows = [
        *measure_sizes(measure_cohort, config.cases, "cases"),
        *measure_sizes(measure_search, config.trials, "trials"),
    ]
    report("What grows with cases and trials, and n of which the formula is", rows, config.json)


def measure_sizes(measure: Callable[[int], Figures], sizes: Sequence[int], of: str) -> list[dict[str, float | str]]:
    """A row for each figure, with its values at these sizes."""
    found = []
    for size in sizes:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found.append(process.submit(measure, size).result())
        print(f"{size:,} {of}: {found[-1]}", flush=True)
    return [make_row(name, of, sizes, [figures[name] for figures in found]) for name in found[0]]


def make_row(name: str, of: str, sizes: Sequence[int], values: Sequence[float]) -> dict[str, float | str]:
    """A figure at each size, and the line through them with how far a value is from it at most."""
    start, slope = fit_line(sizes, values)
    off = max(abs(start + slope * size - value) / value for size, value in zip(sizes, values, strict=True))
    return {
        "what": name,
        "of": " / ".join(f"{size:,}" for size in sizes) + f" {of}",
        "measured": " / ".join(f"{value:.3g}" for value in values),
        "formula": f"{start:.2g} {'-' if slope < 0 else '+'} {abs(slope):.2g} n",
        "off by at most": f"{off:.0%}",
    }


def fit_line(sizes: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """The line whose relative distance from the values is least, in squares: what it is at 0, and what each adds."""
    weights = 1 / np.array(values)
    terms = np.stack([np.ones(len(sizes)), np.array(sizes)], axis=1) * weights[:, None]
    (start, slope), *_ = np.linalg.lstsq(terms, np.ones(len(sizes)))
    return float(start), float(slope)


def measure_cohort(cases: int) -> Figures:
    """Convert so many small cases, as one machine does, convert them again, and open what was made."""
    from ray_jobs.on_ray.conversion import convert_cohort

    with tempfile.TemporaryDirectory() as folder:
        scans, store = write_small_cases(Path(folder) / "scans", cases), str(Path(folder) / "store")
        first = write_small_cases(Path(folder) / "first", 4)
        quiet = Console(quiet=True)
        convert_cohort(first, str(Path(folder) / "first.zarr"), console=quiet)  # so that imports do not count
        figures = {
            name: time_call(lambda: convert_cohort(scans, store, console=quiet)).cpu
            for name in ("converting, CPU-s", "converting again, nothing to do, CPU-s")
        }
        return figures | measure_opening(store)


def measure_opening(store: str) -> Figures:
    """What opening costs, alone and with a look at every record; the cheapest of several rounds."""

    def cheapest(work: Callable[[], object]) -> float:
        return min(time_call(work).cpu for _ in range(5))

    opening = cheapest(lambda: open_store(store))
    looking = cheapest(lambda: open_store(store).infos())
    tracemalloc.start()
    opened = open_store(store)
    held = tracemalloc.get_traced_memory()[0]
    opened.infos()
    held_records = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return {
        "the root's file, MB": (Path(store) / ROOT_KEY).stat().st_size / 1e6,
        "opening, CPU-s": opening,
        "opening and looking at every record, CPU-s": looking,
        "an opened store, MB": held / 1e6,
        "an opened store and every record, MB": held_records / 1e6,
    }


def write_small_cases(folder: Path, cases: int) -> Path:
    """As many complete cases of a few voxels, no two alike."""
    random = np.random.default_rng(0)
    inner = (slice(1, -1),) * 3
    for number in range(cases):
        name = f"BraTS-GLI-{number:05d}-000"
        (folder / name).mkdir(parents=True)
        for ending in _ENDINGS:
            voxels = np.zeros((_SIDE,) * 3, np.uint8 if ending == "seg" else np.int16)
            voxels[inner] = random.integers(1, 4 if ending == "seg" else 900, voxels[inner].shape)
            image = nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))
            nibabel.save(image, folder / name / f"{name}-{ending}.nii")
    return folder
