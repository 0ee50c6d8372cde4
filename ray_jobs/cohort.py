"""From what the user named (a folder of NIfTI files, a store, or nothing) to an open store and its splits."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ray_jobs.config import TrainConfig, home_folder
from ray_jobs.conversion import convert_cohort
from storage import MODALITIES, CohortStore, InputError, find_cases, open_store
from storage.errors import UnknownLabelsError
from storage.labels import CONVENTIONS
from storage.phantom import write_phantom_cohort
from storage.splits import PARTS

PHANTOM_CASES = 16
PHANTOM_SEED = 0


def check_input(config: TrainConfig) -> None:
    """Raise InputError for a store or source that cannot be used, before Ray starts and anything is written."""
    if config.store is not None:
        store = open_store(config.store)
        check_scans(config, store.settings.modalities, store.uri)
        return
    check_scans(config, MODALITIES, config.source or "the synthetic cohort")  # what a source is converted with here
    if config.source is not None:
        search = find_cases(Path(config.source))
        subjects = {case.subject for case in search.cases if case.label is not None}
        if len(subjects) < len(PARTS):
            found = f"found {len(subjects)} in {len(search.cases)} complete cases"
            reason = f"; the first of {len(search.refused)} refused: {search.refused[0]}" if search.refused else ""
            raise InputError(
                f"wanted at least {len(PARTS)} labelled subjects below {config.source}, for {', '.join(PARTS)}; "
                f"{found}: add cases, or download the missing scans{reason}"
            )


def check_scans(config: TrainConfig, modalities: Sequence[str], place: str) -> None:
    """Raise InputError where the network does not take as many scans as the cases have."""
    if config.model.modalities != len(modalities):
        raise InputError(
            f"wanted a network for the {len(modalities)} scans of {place} ({', '.join(modalities)}), got "
            f"--model.modalities {config.model.modalities}: give --model.modalities {len(modalities)}, or a store that "
            "convert.py --modalities made of other scans"
        )


def find_or_make_store(config: TrainConfig, console: Console) -> CohortStore:
    """Return the open store of `config`, converting its source, or a synthetic cohort, where that is still to do."""
    if config.store is not None:
        return open_store(config.store)
    source = Path(config.source) if config.source is not None else phantom_source(console)
    uri = str(store_folder(source))
    try:
        report = convert_cohort(source, uri, console=console)
    except UnknownLabelsError as error:  # its flags are those of convert.py
        raise InputError(
            f"{error.finding}; say what they mean: python ray_jobs/convert.py --source {source} --store PATH "
            f"--label-convention {' | '.join(CONVENTIONS)} (or --label-map), then give --store PATH here, not --source"
        ) from None
    for refusal in report.refused:
        console.print(f"refused {refusal}", markup=False, style="yellow", soft_wrap=True)
    return open_store(uri)


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


def store_folder(source: Path) -> Path:
    """Return where the store of `source` is kept: the same place every time for the same folder."""
    place = source.resolve()
    return data_folder() / f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}.zarr"


def data_folder() -> Path:
    """Return the folder for synthetic cohorts and converted stores."""
    return home_folder() / "data"


def cache_folder() -> Path:
    """Return where this machine keeps decoded cases: a cloud machine's NVMe disk, else the user's cache folder."""
    nvme = Path("/opt/dlami/nvme")
    if nvme.is_dir() and os.access(nvme, os.W_OK):
        return nvme / "brats-stream-cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brats-stream"
