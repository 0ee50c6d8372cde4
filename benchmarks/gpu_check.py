"""What only a machine with a GPU can show, in one command and without Ray: `python -m benchmarks gpu-check`.

The checks come cheapest and most telling first, and each stands on its own: an error costs that check alone.
`--minutes` limits the whole; from the first check that there is no time for, the rest are left out and named. What was
found so far is written to `--json` after each. docs/gpu.md says what each check shows and what to do about a NO.

Exit status 0 when no check fails, whatever was left out; 1 when one does, 2 when there is no GPU.
"""

import faulthandler
import gc
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.device import device_name
from benchmarks.gpu_checks.bench import MOST_CASES, Bench, Finding
from benchmarks.gpu_checks.feed import check_one_batch, measure_loader_alone, measure_waits
from benchmarks.gpu_checks.parity import OPERATIONS, check_alone, check_mixture, check_norm
from benchmarks.gpu_checks.settings import GpuCheck
from benchmarks.gpu_checks.short_run import check_short_run
from benchmarks.gpu_checks.steps import compare_layouts, compare_layouts_compiled, compare_peers, measure_batches
from benchmarks.gpu_checks.synchronisations import count_synchronisations
from benchmarks.networks import check_sides
from benchmarks.report import describe_origin, print_table, write_record
from benchmarks.stores import open_cohort
from dali_pipelines.devices import make_current, parse_device
from models import UNET_PRESETS
from storage import InputError

Row = dict[str, Any]

STDERR = 2  # sys.stderr may be a text file that has no number
GRACE_SECONDS = 120.0  # for the check that is at work when the time is over


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing to look at. seconds: with fewer left it is not begun; an H200 took less, but for compiling."""

    name: str
    work: Callable[[Bench], Iterable[Finding]]
    seconds: float = 5
    needs_gpu: str = ""  # why a CPU cannot show it


CHECKS = (
    Check(name="one batch", work=check_one_batch),
    *(Check(name=f"parity, {name.replace('_', ' ')}", work=check_alone(name)) for name in OPERATIONS),
    Check(name="parity, all together", work=check_mixture),
    Check(name="parity, normalisation", work=check_norm, needs_gpu="on a CPU the kernels are interpreted"),
    Check(
        name="synchronisations",
        work=count_synchronisations,
        needs_gpu="torch reports what waits for a GPU",
    ),
    Check(name="train step", work=compare_layouts, seconds=15),
    Check(name="waiting for data", work=measure_waits, seconds=15),
    Check(name="loader alone", work=measure_loader_alone, seconds=10),
    Check(name="short run", work=check_short_run, seconds=20),
    Check(name="peak memory", work=measure_batches, seconds=10, needs_gpu="torch counts what a GPU allocates"),
    Check(name="peers", work=compare_peers, seconds=20),
    Check(
        name="train step, compiled",
        work=compare_layouts_compiled,
        seconds=120,
        needs_gpu="on a CPU it takes a C++ compiler and minutes: python -m benchmarks train-step --compile",
    ),
)


def run(config: GpuCheck) -> bool:
    """All checks; prints a table and returns whether none failed. Raises InputError where there is no GPU."""
    if config.device != "cpu" and not torch.cuda.is_available():
        raise InputError("wanted a GPU, torch sees none; run this on a machine with one, or try it with --device cpu")
    if config.minutes <= 0:
        raise InputError(f"--minutes must be more than 0, got {config.minutes:g}")
    check_sides(UNET_PRESETS["tiny"], (config.side,) * 3, "--side")
    device, end = parse_device(config.device), time.monotonic() + 60 * config.minutes
    make_current(device)
    title = f"GPU check on {device_name(device)}, torch {torch.__version__}"
    origin = describe_origin(title)
    # One that hangs is ended, with a word about where: its machine is paid for by the minute.
    faulthandler.dump_traceback_later(60 * config.minutes + GRACE_SECONDS, exit=True, file=STDERR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(
                cache=open_cohort(config.store, Path(folder), most=MOST_CASES),
                device=device,
                side=config.side,
                seconds_left=lambda: end - time.monotonic(),
                folder=Path(folder),
            )
            rows: list[Row] = []
            for row in run_checks(CHECKS, bench):
                rows.append(row)
                print(f"{row['check']}: {row['passed']}, {row['figures']}", flush=True)
                if config.json is not None:
                    write_record(origin, rows, config.json)
    finally:
        faulthandler.cancel_dump_traceback_later()
    print_table(title, rows)
    return all(row["passed"] != "NO" for row in rows)


def run_checks(checks: Sequence[Check], bench: Bench) -> Iterator[Row]:
    """A row for each finding, and for each check that was left out: from the first that is late, all."""
    late = False
    for check in checks:
        late = late or bench.seconds_left() < check.seconds
        if check.needs_gpu and not bench.on_gpu:
            yield make_row(check.name, "left out", f"needs a GPU: {check.needs_gpu}")
        elif late:
            yield make_row(check.name, "left out", "no time for it: give more --minutes")
        else:
            yield from run_check(check, bench)


def run_check(check: Check, bench: Bench) -> Iterator[Row]:
    """The check's findings; if it fails in the middle, those it had and the error."""
    before = bench.seconds_left()
    try:
        for finding in check.work(bench):
            name = f"{check.name}: {finding.what}" if finding.what else check.name
            passed = "-" if finding.passed is None else "yes" if finding.passed else "NO"
            yield make_row(name, passed, finding.figures, seconds=before - bench.seconds_left())
            before = bench.seconds_left()
    except Exception as error:
        traceback.print_exc()
        words = " ".join(str(error).split())
        yield make_row(check.name, "NO", f"{type(error).__name__}: {words}", seconds=before - bench.seconds_left())
    if bench.on_gpu:
        gc.collect()  # the memory that it held is not the next one's


def make_row(check: str, passed: str, figures: str, *, seconds: float = 0.0) -> Row:
    """A row of the table and of the record."""
    return {"check": check, "passed": passed, "s": round(seconds, 1), "figures": figures}
