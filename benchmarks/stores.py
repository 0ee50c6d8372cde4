"""The cases that a benchmark reads: a store that is there, or a few synthetic ones."""

from pathlib import Path

from storage import CohortStore, DecodedCaseCache, convert_case, create_store, find_cases, open_store
from storage.scans.phantom import write_phantom_cohort

PHANTOM_CASES = 6
ENOUGH_BYTES = 1 << 40


def open_cohort(uri: str | None, folder: Path, *, most: int | None = None) -> DecodedCaseCache:
    """Return the first `most` labelled cases of the store decoded, as after a run's first epoch; None: all.

    Synthetic ones without a store. What is made is made in `folder`.
    """
    store = open_store(uri) if uri is not None else make_synthetic_store(folder)
    cache = DecodedCaseCache(store, folder / "cache", max_bytes=ENOUGH_BYTES)
    for case_id in labelled_cases(store)[:most]:
        cache.read_case(case_id)
    return cache


def make_synthetic_store(folder: Path) -> CohortStore:
    """A few phantom cases, converted."""
    store = create_store(folder / "phantom.zarr")
    for case in find_cases(write_phantom_cohort(folder / "scans", cases=PHANTOM_CASES)).cases:
        convert_case(case, store)
    store.rebuild_index()
    return store


def labelled_cases(store: CohortStore) -> tuple[str, ...]:
    """The cases that a training can use."""
    return tuple(info.case_id for info in store.infos() if info.labelled)
