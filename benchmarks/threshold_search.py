"""What the best thresholds cost: from one pass over the cases, and as cs231n-3d-segmentation found them, one pass for
each combination of the regions' thresholds.

`python -m benchmarks threshold-search`. The combinations are run for real on a small grid; 19³ is an estimate.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.report import report
from benchmarks.settings import ThresholdSearchBenchmark
from benchmarks.stores import labelled_cases, open_cohort
from models import build_unet, choose_precision
from models.thresholds import ThresholdCounts
from ray_jobs.evaluation.validation import CaseEvaluator, Evaluation, evaluate
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.presets import preset
from storage import REGIONS, DecodedCaseCache

CS231N_STEPS = 19  # thresholds a region: 6,859 combinations

T = TypeVar("T")


class Search:
    """The cases and the demo's network, whose calls are counted. Its weights are random: passes cost the same."""

    def __init__(self, cache: DecodedCaseCache, folder: Path) -> None:
        self._config, self._cache = preset("demo"), cache
        self._session = LocalSession(folder, torch.device("cpu"))
        torch.manual_seed(0)
        precision = choose_precision(self._session.device, self._config.precision)
        execution = self._config.execution.settled(self._session.device, precision)
        network = build_unet(self._config.model, execution).eval()
        network.register_forward_hook(self._note_call)
        self._evaluator = CaseEvaluator(network, self._config.sampling.patch_shape, self._config.validation, precision)
        self.calls = 0

    def _note_call(self, *_: object) -> None:
        self.calls += 1

    def score(self, thresholds: Sequence[float] | None) -> Evaluation:
        """One pass over the cases: at these thresholds, or at the best ones there are."""
        return evaluate(
            self._evaluator,
            self._cache,
            labelled_cases(self._cache.store),
            self._session,
            normalisation=self._config.normalisation,
            frame=self._config.frame,
            thresholds=None if thresholds is None else dict(zip(REGIONS, thresholds, strict=True)),
        )

    def measure(self, work: Callable[[], T]) -> tuple[T, dict[str, Any]]:
        """Do the work; return its result, the calls of the network and the CPU seconds that it took."""
        before, cpu = self.calls, time.process_time()
        result = work()
        return result, {"forward passes": self.calls - before, "CPU s": time.process_time() - cpu}


def run(config: ThresholdSearchBenchmark) -> None:
    """Find the best thresholds both ways, and count the passes."""
    with tempfile.TemporaryDirectory() as scratch:
        search = Search(open_cohort(config.store, Path(scratch)), Path(scratch) / "run")
        search.score(None)  # imports and the like, which only the first pass pays
        exact, ours = search.measure(lambda: search.score(None))
        grid = [round((step + 1) / (config.steps + 1), 3) for step in range(config.steps)]
        combinations = list(itertools.product(grid, repeat=len(REGIONS)))
        best, theirs = search.measure(lambda: max(search.score(each).scores.mean_iou for each in combinations))
    check(exact, grid, best)
    factor = CS231N_STEPS**3 / len(combinations)
    rows = [
        {"way": "one pass, counted (ours)", "thresholds a region": len(exact.curves.thresholds_T), **ours},
        {"way": "a pass for each combination", "thresholds a region": config.steps, **theirs},
        {
            "way": "a pass for each combination (estimate)",
            "thresholds a region": CS231N_STEPS,
            **{name: value * factor for name, value in theirs.items()},
        },
    ]
    report(f"best thresholds of {exact.cases} cases, demo network", rows, config.json)


def check(exact: Evaluation, grid: Sequence[float], best: float) -> None:
    """Raise AssertionError where the counts do not say of the grid what the passes found."""
    steps = len(exact.curves.thresholds_T) - 1
    from_counts = exact.curves.iou_TR[[round(threshold * steps) for threshold in grid]].max(axis=0).mean()
    assert abs(from_counts - best) < 1e-9, f"the counts say {from_counts} of the grid, the passes found {best}"
    assert exact.scores.mean_iou >= best - 1e-9
    assert ThresholdCounts(1).num_thresholds == steps + 1
