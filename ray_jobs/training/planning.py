"""What a run or a search decides before any worker starts: workers, store, splits."""

import dataclasses
from typing import Any, Self

from rich.console import Console

from ray_jobs.checkpoints.first_weights import find_first_weights, notice_of_other_cases
from ray_jobs.checkpoints.run_folder import RunFolder
from ray_jobs.on_ray.ray_start import choose_workers, most_workers, refuse_hidden_folder
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.folders import cache_folder
from ray_jobs.settings.input_check import fit_to_store
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.run_input import find_or_make_store
from storage import CohortStore, InputError, Region, Splits, open_store, split_cohort
from storage.store.plausibility import cohort_notices, part_notices

NO_VALIDATION = "no case validates: the last epoch is kept, and the thresholds are 0.5 or those of --thresholds"
NO_TEST = "no case tests: all scores are of cases on which epoch and thresholds are chosen"
NO_SCORE = "no case tests either: how good the network is will not be known"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decided:
    """A plan, the digest of its store and the regions of its task, and what it runs on."""

    plan: TrainPlan
    store_digest: str
    regions: tuple[Region, ...]
    workers: int
    least_workers: int
    use_gpu: bool

    @property
    def sizes(self) -> int | tuple[int, int]:
        """The number of workers, or the range it may lie in."""
        return self.workers if self.least_workers == self.workers else (self.least_workers, self.workers)

    def of_fold(self, fold: int) -> Self:
        """Return this for one fold of its cross-validation."""
        config = dataclasses.replace(self.plan.config, splits=self.plan.config.splits.of_fold(fold))
        return self.with_plan(config=config, splits=split_cohort(open_store(self.plan.store), config.splits))

    def with_plan(self, **changes: Any) -> Self:
        """Return this with other values in its plan."""
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, **changes))

    def open_folder(self, name: str) -> RunFolder:
        """Return the folder of that name among the runs; raises InputError where some node does not see it."""
        folder = RunFolder(self.plan.config.runs, name)
        refuse_hidden_folder(folder.uri, "run folder")
        return folder


def decide(config: TrainConfig, console: Console) -> Decided:
    """Choose workers, convert what is to be converted, deal the cases out. Raises InputError for what cannot run.

    Of a cross-validation without a fold the first is decided, and `of_fold` decides the others.
    """
    workers, use_gpu = choose_workers(config.workers, gpu=config.gpu)
    least = config.min_workers or workers
    check_world_sizes(config, least, workers, room=most_workers(use_gpu=use_gpu))
    store = find_or_make_store(config, console)
    config = fit_to_store(config, store)
    if (first := find_first_weights(config, store)) is not None:
        refuse_hidden_folder(first.uri, "checkpoint")
        config = dataclasses.replace(config, init_from=first.uri)
    whole = config.splits.folds is not None and config.splits.fold is None
    splits = split_cohort(store, config.splits.of_fold(0) if whole else config.splits)
    notices = cohort_notices(store.infos(), store.task) if whole else find_notices(store, splits)
    if first is not None and (other := notice_of_other_cases(first, config, store)) is not None:
        notices = [*notices, other]
    for notice in notices:
        console.print(f"notice: {notice}", style="yellow", soft_wrap=True)
    refuse_hidden_folder(store.uri, "store")
    plan = TrainPlan(config=config, store=store.uri, splits=splits, cache=cache_folder())
    return Decided(
        plan=plan,
        store_digest=store.digest,
        regions=store.task.regions,
        workers=workers,
        least_workers=least,
        use_gpu=use_gpu,
    )


def find_notices(store: CohortStore, splits: Splits) -> list[str]:
    """Return what is odd about the cases, and about the parts that scores are taken of, a line each."""
    infos, task = store.infos(), store.task
    validation = part_notices(infos, task, "validation", splits.validation)
    unknown = [] if splits.validation else [NO_VALIDATION]
    if not splits.test:
        unknown.append(NO_TEST if splits.validation else NO_SCORE)
    return [*cohort_notices(infos, task), *validation, *part_notices(infos, task, "test", splits.test), *unknown]


def check_world_sizes(config: TrainConfig, least: int, most: int, *, room: int | None = None) -> None:
    """Raise InputError where some number of workers that the run may have cannot share out the batch equally.

    `room` is how many workers there can be at most.
    """
    batch = config.sampling.global_batch_size
    if least > most:
        raise InputError(f"--min-workers {least} is more than --workers {most}")
    for workers in range(least, most + 1):
        if batch % workers:
            fits = [size for size in range(1, min(batch, room or batch) + 1) if batch % size == 0]
            raise InputError(
                f"--sampling.global-batch-size {batch} does not divide among {workers} workers: "
                f"give --workers {' or '.join(map(str, fits))}, or another batch size"
            )
