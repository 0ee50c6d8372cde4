"""How often a training step makes the host wait for the GPU, and where, as torch itself reports it."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.end_to_end import make_plan, training_config
from benchmarks.gpu_checks.bench import Bench, Finding
from benchmarks.settings import EndToEndBenchmark
from dali_pipelines import Batch
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.training.run import prepare
from ray_jobs.training.train_loop import train_step

ALLOWED = 1  # whether the gradients are finite, which decides if the step is taken
STEPS = 5
WARM_UP = 3  # the first steps allocate, and choose kernels
REPORT = "called a synchronizing CUDA operation"


def count_synchronisations(bench: Bench) -> Iterable[Finding]:
    """Five steps of training's own, each on a batch of the loader, under torch.cuda.set_sync_debug_mode("warn").

    torch reports the waits that it makes itself, from whichever thread: also of the loader's batches that come while
    the steps run. It does not know of DALI's.
    """
    told = EndToEndBenchmark(preset="demo", patch=(bench.side,) * 3, batch=2)
    plan = make_plan(bench.cache, bench.cases, training_config(told))
    run = prepare(plan, LocalSession(bench.folder / "synchronisations", bench.device))
    run.model.train()
    counts: list[Counter[str]] = []
    with run.loader as loader:
        batches = run.clock.batches(loader)
        for _ in range(WARM_UP):
            train_step(run, next(batches))
        for _ in range(STEPS):
            batch: Batch = next(batches)
            with reported() as seen:
                train_step(run, batch)
            counts.append(places(seen))
    yield summarise(counts)


@contextmanager
def reported() -> Iterator[list[warnings.WarningMessage]]:
    """All that is warned of in the body, with torch told to warn where it waits for the GPU."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode(before)


def places(seen: Sequence[warnings.WarningMessage]) -> Counter[str]:
    """File and line of each synchronisation among the warnings, and how often it came."""
    return Counter(
        f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
        for warning in seen
        if REPORT in str(warning.message)
    )


def summarise(counts: Sequence[Counter[str]]) -> Finding:
    """Passed where no step waits more often than it may."""
    each = [sum(count.values()) for count in counts]
    where = ", ".join(f"{place} ({times})" for place, times in sum(counts, Counter[str]()).most_common(6))
    return Finding(
        passed=max(each) <= ALLOWED,
        figures=f"{', '.join(map(str, each))} in {len(each)} steps, {ALLOWED} allowed; {where or 'none'}",
    )
