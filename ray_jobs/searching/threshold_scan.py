"""Every threshold over a split's cases: inference spread over the cluster once, then counted, drawn, written down."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console

from dali_pipelines import VolumeLoader
from models import Decision, Objective, ThresholdCounts
from models.thresholds import RegionScores
from ray_jobs.checkpoints.lookup import find_checkpoint, other_version
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.evaluation.validation import curves_of
from ray_jobs.on_ray.ray_start import choose_workers, ray_running, refuse_hidden_folder
from ray_jobs.on_ray.spread import spread
from ray_jobs.pictures.figures import draw_threshold_curves
from ray_jobs.pictures.sections import as_png
from ray_jobs.searching.cases_to_score import Split
from ray_jobs.settings.console import figures_table, open_console, tracked
from ray_jobs.settings.folders import cache_folder
from ray_jobs.settings.objective import RULES, SCORES_ARE, describe_best
from storage import DecodedCaseCache, InputError, Region, open_store
from storage.store.in_use import only_writer
from storage.store.objects import Objects

CASES_LEFT_OUT = 3  # the exit status
BYTES_OF_A_WORKER = 4e9  # a network without a GPU, over a whole case: the preset brats3d peaks at 3.1 GB


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaseCounts:
    """One case's counts, and how often the network was called for them."""

    state: Mapping[str, Any]
    forward_passes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counter:
    """What an actor is made of: it loads the network and then counts case after case."""

    checkpoint: str
    store: str
    cache: Path

    def __call__(self) -> Callable[[str], CaseCounts]:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = open_trained(self.checkpoint, device)
        evaluator = network.evaluator()
        cache = DecodedCaseCache(open_store(self.store), self.cache, max_bytes=int(network.config.cache_gb * 1e9))
        calls = [0]

        def note_call(*_: object) -> None:
            calls[0] += 1

        network.model.register_forward_hook(note_call)

        def count(case_id: str) -> CaseCounts:
            calls[0] = 0
            counts = ThresholdCounts(num_regions=len(cache.task.regions), device=device)
            frame, normalisation = network.config.frame, network.normalisation
            for volume in VolumeLoader(cache, [case_id], device=str(device), normalisation=normalisation, frame=frame):
                if volume.regions_RDHW is None:
                    raise InputError(f"case {case_id} has no label: it can be predicted, not scored")
                counts.update(
                    case_id,
                    evaluator.probabilities(volume.image_MDHW, outside_M=volume.outside_M),
                    volume.regions_RDHW,
                )
            return CaseCounts(state=counts.state(), forward_passes=calls[0])

        return count


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdScan:
    """The merged counts of a split's cases, how they came about, and what is maximised."""

    objective: Objective
    checkpoint: str
    store: str
    split: Split
    regions: tuple[Region, ...]
    counts: ThresholdCounts
    forward_passes: Mapping[str, int]
    """By case: how often the network was called."""
    bad_cases: Mapping[str, str]

    @property
    def region_names(self) -> tuple[str, ...]:
        """In the order of the counts."""
        return tuple(region.name for region in self.regions)

    @property
    def per_region(self) -> dict[str, float]:
        """For each region the threshold with the highest score."""
        return dict(zip(self.region_names, self.counts.best_per_region(self.objective).threshold, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return what thresholds.json says."""
        grid = self.counts.thresholds.tolist()
        return {
            "checkpoint": self.checkpoint,
            "store": self.store,
            "split": self.split,
            "rules": RULES,
            "objective": self.objective,
            "per_region": self._by_region(self.counts.best_per_region(self.objective)),
            "shared": self._by_region(self.counts.best_shared(self.objective)),
            "plain": self._by_region(self.counts.at(Decision.plain(len(self.regions)).thresholds)),
            "grid": {"from": grid[0], "to": grid[-1], "thresholds": len(grid)},
            "cases": list(self.counts.case_ids),
            "bad_cases": dict(self.bad_cases),
            "forward_passes": {"total": sum(self.forward_passes.values()), "by_case": dict(self.forward_passes)},
            "curves": curves_of(self.counts, self.region_names).to_json(),
        }

    def _by_region(self, scores: RegionScores) -> dict[str, dict[str, float]]:
        rows = zip(self.region_names, scores.threshold, scores.iou, scores.dice, strict=True)
        return {region: {"threshold": round(at, 6), "iou": iou, "dice": dice} for region, at, iou, dice in rows}


def scan_thresholds(
    checkpoint: str,
    store_uri: str,
    split: Split,
    case_ids: Sequence[str],
    console: Console,
    *,
    workers: int | None,
    objective: Objective,
) -> ThresholdScan:
    """Predict every case of the split (`cases_of`) once, over the cluster, and count. Bad cases are named and left out.

    `workers` predict at once; None stands for one per GPU or, where there are none, as many as there is room for.
    Raises InputError where no case can be scored.
    """
    found = find_checkpoint(checkpoint)
    store = open_store(store_uri)
    refuse_hidden_folder(store.uri, "store")
    refuse_hidden_folder(found.uri, "checkpoint")
    some, use_gpu = choose_workers(workers, gpu=None)
    if workers is None and not use_gpu:
        some = max(some, most_on_cpus())
    if (notice := other_version(found)) is not None:
        console.print(f"notice: {notice}", style="yellow", soft_wrap=True)
    make = Counter(checkpoint=found.uri, store=store.uri, cache=cache_folder())
    merged = ThresholdCounts(num_regions=len(store.task.regions))
    passes: dict[str, int] = {}
    bad: dict[str, str] = {}
    outcomes = spread(make, case_ids, workers=some, use_gpu=use_gpu)
    for outcome in tracked(outcomes, console, "predicting each case once", total=len(case_ids)):
        if outcome.result is None:
            bad[outcome.item] = outcome.error or ""
            console.print(f"left out {outcome.item}: {outcome.error}", style="yellow", soft_wrap=True)
        else:
            merged.merge(ThresholdCounts.from_state(outcome.result.state))
            passes[outcome.item] = outcome.result.forward_passes
    if not passes:
        raise InputError(f"none of the {len(case_ids)} cases could be scored; the last: {list(bad.values())[-1]}")
    return ThresholdScan(
        objective=objective,
        checkpoint=found.uri,
        store=store.uri,
        split=split,
        regions=store.task.regions,
        counts=merged,
        forward_passes=passes,
        bad_cases=bad,
    )


def most_on_cpus() -> int:
    """Return how many workers the cluster has CPUs and memory for, at this moment."""
    resources = ray.cluster_resources()
    return int(min(resources.get("CPU", 0), resources.get("memory", 0) // BYTES_OF_A_WORKER))


def find_thresholds(
    checkpoint: str,
    store: str,
    split: Split,
    case_ids: Sequence[str],
    *,
    output: str | None,
    workers: int | None,
    objective: Objective,
) -> int:
    """Score the cases, write and print what came; return the exit status: 3 where some cases were left out."""
    console = open_console()
    folder = output or f"{checkpoint}/scored-{split}"
    with contextlib.ExitStack() as stack:
        try:  # now: a folder that cannot be written to would cost what was found by then
            stack.enter_context(only_writer(folder, "wait for its end"))
        except InputError as error:
            raise InputError(f"{error}, or give another --output") from error
        with ray_running():
            scan = scan_thresholds(checkpoint, store, split, case_ids, console, workers=workers, objective=objective)
        print_scan(scan, console)
        folder = write_scan(scan, folder)
    console.print(f"{folder}/thresholds.json and thresholds.png", soft_wrap=True, highlight=False)
    return CASES_LEFT_OUT if scan.bad_cases else 0


def write_scan(scan: ThresholdScan, output: str) -> str:
    """Write thresholds.json and thresholds.png to the folder or URL; return it as written."""
    folder = Objects(output, create=True)
    folder.put("thresholds.json", (json.dumps(scan.to_json(), indent=1) + "\n").encode())
    choice = describe_best(scan.objective)
    figure = draw_threshold_curves(curves_of(scan.counts, scan.region_names), scan.per_region, scan.regions, choice)
    folder.put("thresholds.png", as_png(figure, dpi=120))
    return folder.uri


def print_scan(scan: ThresholdScan, console: Console) -> None:
    """Print the best threshold for each region, and the best shared one."""
    found = scan.to_json()
    cases = len(scan.counts.case_ids)
    columns = ("threshold", "IoU", "Dice", "shared threshold", "IoU there", "Dice there", "IoU at 0.5", "Dice at 0.5")
    table = figures_table(f"{cases} {scan.split} cases, each predicted once", "region", *columns)
    for region, own in found["per_region"].items():
        shared, plain = found["shared"][region], found["plain"][region]
        figures = [f"{scores[key]:.3f}" for scores in (own, shared) for key in ("threshold", "iou", "dice")]
        table.add_row(region, *figures, *(f"{plain[key]:.3f}" for key in ("iou", "dice")))
    console.print(table)
    chosen = f"{describe_best(scan.objective)}, which flatter, being chosen on these very cases"
    console.print(f"{chosen}. {SCORES_ARE}.", highlight=False)
