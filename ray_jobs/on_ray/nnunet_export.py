"""A store written in nnU-Net's raw format, its cases side by side."""

from collections.abc import Callable
from pathlib import Path

import ray
from rich.console import Console

from ray_jobs.on_ray.address import on_a_cluster
from ray_jobs.on_ray.conversion_workers import Workers, open_once
from ray_jobs.on_ray.ray_start import refuse_hidden_folder
from storage import CohortStore
from storage.scans.dataset_json import check_dataset_folder
from storage.store.nnunet_export import export_case, finish_export


def export_cohort(
    store: CohortStore, folder: Path, *, console: Console, start_workers: Callable[[], None] = lambda: None
) -> None:
    """Write the store's cases into `folder`, dataset.json last; `start_workers` joins the cluster, where there is one.

    Raises InputError for a folder that cannot be that, and for a damaged case.
    """
    folder = folder.absolute()
    check_dataset_folder(folder)
    if on_a_cluster() and not ray.is_initialized():
        start_workers()
    if ray.is_initialized():
        refuse_hidden_folder(str(folder), "folder for nnU-Net")
    jobs = [(store.uri, store.digest, case_id, folder) for case_id in store.case_ids]
    Workers(console, start_workers).map(_export, jobs, "writing for nnU-Net")
    finish_export(store, folder)


def _export(job: tuple[str, str, str, Path]) -> None:
    uri, digest, case_id, folder = job
    export_case(open_once(uri, digest), case_id, folder)
