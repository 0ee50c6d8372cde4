"""A store written in nnU-Net's raw format, its cases side by side where Ray runs, else here one after the other."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import ray
from rich.console import Console

from ray_jobs.on_ray.ray_start import refuse_hidden_folder
from ray_jobs.on_ray.spread import Outcome, spread
from ray_jobs.settings.console import tracked
from storage import CohortStore, InputError, open_store
from storage.scans.dataset_json import check_dataset_folder
from storage.store.nnunet_export import export_case, finish_export


def export_cohort(
    store: CohortStore, folder: Path, *, console: Console, start_workers: Callable[[], None] = lambda: None
) -> None:
    """Write the store's cases into `folder`, dataset.json last; `start_workers` may initialise Ray.

    Raises InputError for a folder that cannot be that, and for a damaged case.
    """
    folder = folder.absolute()
    check_dataset_folder(folder)
    make = partial(_make_exporter, store.uri, folder)
    if len(store.case_ids) > 1 and not ray.is_initialized():
        start_workers()
    if ray.is_initialized():
        refuse_hidden_folder(str(folder), "folder for nnU-Net")
        workers = int(ray.cluster_resources().get("CPU", 1))
        outcomes: Iterable[Outcome[str, None]] = spread(make, store.case_ids, workers=workers, use_gpu=False)
    else:
        export = make()
        outcomes = (Outcome(item=case_id, result=export(case_id)) for case_id in store.case_ids)
    for outcome in tracked(outcomes, console, "writing for nnU-Net", total=len(store.case_ids)):
        if outcome.error is not None:
            raise InputError(f"case {outcome.item}: {outcome.error}")
    finish_export(store, folder)


def _make_exporter(uri: str, folder: Path) -> Callable[[str], None]:
    return partial(_export, open_store(uri), folder)


def _export(store: CohortStore, folder: Path, case_id: str) -> None:
    export_case(store, case_id, folder)
