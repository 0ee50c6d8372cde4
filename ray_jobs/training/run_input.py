"""From what the user named (a folder of NIfTI files, a store, or nothing) to an open store and its splits."""

import shlex
import threading
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from ray_jobs.on_ray.conversion import convert_cohort
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.folders import data_folder, store_folder
from storage import CohortStore, InputError, open_store
from storage.errors import UnknownLabelsError
from storage.scans.phantom import write_phantom_cohort

PHANTOM_CASES = 16
PHANTOM_SEED = 0


def find_or_make_store(config: TrainConfig, console: Console) -> CohortStore:
    """Return the open store of `config`, converting its source, or a synthetic cohort, where that is still to do."""
    if config.store is not None:
        return open_store(config.store)
    source = config.source if config.source is not None else phantom_source(console)
    uri = str(store_folder(source))
    try:
        report = convert_cohort(source, uri, console=console)
    except UnknownLabelsError as error:  # its flags are those of convert.py
        raise InputError(
            f"{error}: python ray_jobs/convert.py --source {shlex.quote(str(source))} --store PATH takes these flags; "
            "then give --store PATH here, not --source"
        ) from None
    for refusal in report.refused:
        console.print(f"refused {refusal}", style="yellow", soft_wrap=True)
    for notice in report.notices:
        console.print(f"notice: {notice}", style="yellow", soft_wrap=True)
    return open_store(uri)


def write_cohort_meanwhile(config: TrainConfig, console: Console) -> threading.Thread:
    """Write the synthetic cohort in the thread that is returned, where a run of `config` will want it; else nothing.

    Nor where a number of workers is asked for, which may be refused once Ray has counted, and is to leave nothing.
    What fails in the thread is said when the cohort is asked for.
    """

    def write() -> None:
        with suppress(Exception):
            phantom_source(console)

    thread = threading.Thread(target=write, daemon=True, name="cohort")
    if (config.store, config.source, config.workers) == (None, None, None):
        thread.start()
    return thread


def phantom_source(console: Console) -> Path:
    """Write the synthetic cohort, if it is not there yet, and return its folder."""
    folder = data_folder() / f"phantom-{PHANTOM_CASES}-{PHANTOM_SEED}"
    with console.status("writing the synthetic cohort") as status:
        return write_phantom_cohort(
            folder,
            cases=PHANTOM_CASES,
            seed=PHANTOM_SEED,
            on_case=lambda case_id: status.update(f"writing the synthetic cohort: {case_id}"),
        )
