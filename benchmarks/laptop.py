"""All benchmarks that a laptop can run, one after the other, and the page of them: `make bench [SOURCE=DIR]`."""

import subprocess
import sys
from pathlib import Path

from benchmarks.page import RECORDS, ROOT, write_page
from benchmarks.settings import Laptop
from benchmarks.stores import PHANTOM_CASES
from models import CpuKind
from models.cpu_table import cpu_kind
from storage import InputError
from storage.scans.phantom import write_phantom_cohort

CONVERTED_CASES = "4"  # nnU-Net's preprocessing takes most of the time


def prepare(source: Path | None) -> tuple[str, str]:
    """Return where scans and store lie, from the repository's root: synthetic ones where no source is given."""
    bench = ROOT / ".bench"
    bench.mkdir(exist_ok=True)
    if source is None:
        scans = write_phantom_cohort(bench / "phantom", cases=PHANTOM_CASES, seed=0)
    else:
        scans = bench / source.resolve().name
        if not scans.exists():
            scans.symlink_to(source.resolve())
    store = bench / f"{scans.relative_to(bench).parts[0]}.zarr"
    convert = [sys.executable, "ray_jobs/convert.py", "--source", str(scans), "--store", str(store)]
    # 3: some cases were refused by name, the others are there.
    if subprocess.run(convert, cwd=ROOT).returncode not in (0, 3):
        raise InputError(f"wanted BraTS cases that can be converted in {source}, found none; see above")
    return str(scans.relative_to(ROOT)), str(store.relative_to(ROOT))


def commands(scans: str, store: str, *, real: bool, kind: CpuKind) -> dict[str, list[str]]:
    """Return each record's benchmark with its arguments; what is scored is drawn anew where the scans aren't real.

    A CPU of a kind that computes in float32 whatever it is told has no table.
    """
    return {
        "convert": ["convert", "--source", scans, "--cases", CONVERTED_CASES],
        "store-reads": ["store-reads", "--store", store],
        "peers-loader": ["peers-loader", "--store", store],
        "demo-one-worker": ["demo", "--workers", "1"],
        "demo": ["demo"],  # after it: heads are predicted by what it leaves
        "train-step": ["train-step", "--peers", "--compile"],
        "train-step-strided": ["train-step", "--peers", "--preset", "strided", "--patch", "96", "96", "96"],
        **({f"cpu-table-{kind}": ["cpu-table"]} if kind != "float32" else {}),
        "end-to-end": ["end-to-end", "--store", store],
        "feed": ["end-to-end", "--store", store, "--sleeping-step", "1.0", "1.5", "--ready-batches", "2", "8"],
        "inference": ["inference"],
        "whole-head": ["whole-head"],
        "prediction": ["prediction"],
        "growth": ["growth"],
        "processes": ["processes"],
        "installation": ["installation"],
        "score": ["score", *(["--source", scans] if real else [])],
        "bars": ["bars"],  # of the others
    }


def run(config: Laptop) -> None:
    """Run them all; one that fails is named and the others go on."""
    failed = []
    measured = commands(*prepare(config.source), real=config.source is not None, kind=cpu_kind())
    for name, arguments in measured.items():
        if config.only and name not in config.only:
            continue
        print(f"== {name}", flush=True)
        words = [sys.executable, "-m", "benchmarks", *arguments, "--json", str(RECORDS / f"{name}.json")]
        if subprocess.run(words, cwd=ROOT).returncode != 0:
            failed.append(name)
    write_page()
    if failed:
        raise InputError(f"{', '.join(failed)} failed, see above; their records are as they were")
