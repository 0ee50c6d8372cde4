"""Two short epochs through the training loop itself, without Ray; a run that was stopped and begun again equals it."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu_checks.bench import Bench, Finding
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.on_ray.session import LocalSession, Progress
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.input_check import fit_to_store
from ray_jobs.settings.presets import preset
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.train_loop import train
from storage import Splits


class ShortSession(LocalSession):
    """Asks after each step of this start, by its number, whether to stop there. `losses`: of its epochs."""

    def __init__(self, folder: Path, device: torch.device, stop: Callable[[int], bool]) -> None:
        super().__init__(folder, device)
        self.losses: list[float] = []
        self._steps, self._stop = 0, stop

    def tell(self, progress: Progress) -> None:
        if progress.stage == "validation":  # begins, after an epoch
            self.losses.append(progress.loss)

    def stop_asked(self) -> bool:
        self._steps += 1
        return self._stop(self._steps)


def check_short_run(bench: Bench) -> Iterable[Finding]:
    """A run left alone; then the same, stopped in its second epoch and begun again."""
    plan = make_short_plan(bench)
    steps = plan.config.sampling.steps_per_epoch
    out_of_time = lambda _: bench.is_time_up()  # noqa: E731
    with repeatable(bench.device) as doubts:
        session = ShortSession(bench.folder / "alone", bench.device, out_of_time)
        alone = train(plan, session)
        yield describe_run(alone, session.losses, plan.config)
        if "history" not in alone:
            return
        again = bench.folder / "again"
        stopped = train(plan, ShortSession(again, bench.device, lambda step: step == steps + steps // 2))
        resumed = train(plan, ShortSession(again, bench.device, out_of_time))
    if "history" not in resumed or "stopped" not in stopped:
        cut_off = "stopped" in stopped and "stopped" in resumed
        figures = f"{what_ended(stopped)}, begun again: {what_ended(resumed)}"
        yield Finding(what="resume", passed=None if cut_off else False, figures=figures)
        return
    difference = compare_weights(bench.folder / "alone", again)
    yield Finding(
        what="resume",
        # Where torch cannot repeat an operation bit for bit, a difference says nothing about what was restored.
        passed=True if difference == 0 else None if doubts else False,
        figures=f"{what_ended(stopped)} and begun again: weights differ by {difference:.2g} at most from those of the "
        "run left alone" + (f"; {', '.join(sorted(doubts))}" if doubts else ""),
    )


def make_short_plan(bench: Bench) -> TrainPlan:
    """The demo's run, small: one case validates, the others train, none tests."""
    demo = preset("demo")
    side, patches = (bench.side, 64) if bench.on_gpu else (bench.full_side, 32)
    sampling = replace(demo.sampling, patch_shape=(side,) * 3, global_batch_size=2, patches_per_epoch=patches)
    config = replace(
        demo,
        epochs=2,
        sampling=sampling,
        model=demo.model if bench.on_gpu else replace(demo.model, widths=(4, 8), deep_supervision=0),
        # In so few steps the loss falls by some percent with four seeds of four.
        optimiser=replace(demo.optimiser, learning_rate=1e-2, warmup_steps=2),
        validation=replace(demo.validation, overlap=0.0, every=2),
    )
    *training, validating = bench.cases
    splits = Splits(train=tuple(training) or (validating,), validation=(validating,), test=())
    fitted = fit_to_store(config, bench.cache.store)
    return TrainPlan(config=fitted, store=bench.cache.store.uri, splits=splits, cache=bench.cache.folder)


def describe_run(result: Mapping[str, Any], losses: Sequence[float], config: TrainConfig) -> Finding:
    """Passed where the loss fell. A run that time cut off has neither passed nor failed."""
    if "history" not in result:
        return Finding(what="training", passed=False if "failed" in result else None, figures=what_ended(result))
    seconds = {part: seconds for part, seconds in result["time"]["seconds"].items() if seconds >= 0.05}
    return Finding(
        what="training",
        passed=losses[-1] < losses[0],
        figures=f"loss {losses[0]:.4g}, then {losses[-1]:.4g} in epochs of {config.sampling.steps_per_epoch} steps; "
        f"mean plain IoU {result['validation']['iou']['mean']:.3f}, {result['throughput']['precision']}; "
        f"seconds: {', '.join(f'{part} {spent:.1f}' for part, spent in seconds.items())}",
    )


def what_ended(result: Mapping[str, Any]) -> str:
    """How a run ended, in its own words where it has some."""
    if "failed" in result:
        return str(result["failed"])
    return f"stopped {result['stopped']}" if "stopped" in result else "came to its end"


@contextmanager
def repeatable(device: torch.device) -> Iterator[set[str]]:
    """Have a GPU repeat itself bit for bit, as a CPU does. Afterwards the set has what torch said that it cannot."""
    doubts: set[str] = set()
    if device.type == "cpu":
        yield doubts
        return
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        try:
            yield doubts
        finally:
            torch.use_deterministic_algorithms(mode=False)
            said = [str(warning.message) for warning in seen]
            doubts |= {message.split(",")[0] for message in said if is_doubt(message)}


def is_doubt(message: str) -> bool:
    """Whether torch says that results may differ; a histogram's counts are whole numbers, exact in any order."""
    return "deterministic" in message and "_histc" not in message


def compare_weights(left: Path, right: Path) -> float:
    """The largest difference of a weight between the newest checkpoints of two runs."""
    first, second = (load_file(run / newest_name(run) / "model.safetensors") for run in (left, right))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def newest_name(run: Path) -> str:
    """The folder of a run's newest checkpoint."""
    newest = CheckpointStore(str(run)).newest()
    assert newest is not None  # the run came to its end
    return newest.name
