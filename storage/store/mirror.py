"""A store copied elsewhere, object by object: to a bucket, from one, or to a faster disk."""

from collections.abc import Callable

from storage.errors import InputError
from storage.store.cohort_store import CASES, CohortStore, case_key, find_store
from storage.store.in_use import only_writer
from storage.store.index import ASSIGNMENTS_KEY, EMPTY_GROUP, ROOT_KEY, Index, encode_case, encode_index
from storage.store.objects import Objects


def mirror_store(
    store: CohortStore, target_uri: str, *, on_case: Callable[[str], None] = lambda case_id: None
) -> CohortStore:
    """Bring `store` to `target_uri` and return the copy. Cases that are there already, by digest, are left alone.

    Each case's record is written last and the index after all cases, so a copy that was cut off goes on where it was.
    Raises InputError when the target holds something else than an earlier copy, or a store with other settings.
    """
    existing = find_store(target_uri)
    target = Objects(target_uri, create=True)
    if existing is None and not target.is_empty() and target.get(f"{CASES}/{ROOT_KEY}") is None:
        raise InputError(f"wanted an empty place or an earlier copy at {target.uri}, found other files; name a new one")
    if existing is not None and existing.settings != store.settings:
        raise InputError(f"{target.uri} holds a store with other modalities or labels; name a new place")
    target.put(f"{CASES}/{ROOT_KEY}", EMPTY_GROUP)
    with only_writer(target.uri, "wait for its end, or name another place"):
        return _copy(store, target, existing, on_case)


def _copy(
    store: CohortStore, target: Objects, existing: CohortStore | None, on_case: Callable[[str], None]
) -> CohortStore:
    copy = existing or CohortStore(target, Index(settings=store.settings, records={}, digest=""))
    there = copy.committed_cases()
    for case_id in store.case_ids:
        info = store.info(case_id)
        if case_id not in there or there[case_id].digest != info.digest:
            _copy_case(store, copy, case_id)
            target.put(case_key(case_id, ROOT_KEY), encode_case(info))
        on_case(case_id)
    assignments = store.objects.get(ASSIGNMENTS_KEY)
    if assignments is not None:
        target.put(ASSIGNMENTS_KEY, assignments)
    target.put(ROOT_KEY, encode_index(store.settings, store.index.records))
    return CohortStore(target, store.index)


def _copy_case(store: CohortStore, target: CohortStore, case_id: str) -> None:
    target.remove_case(case_id)
    # The voxels before the metadata that makes an array of them.
    keys = [key for key in store.objects.keys(case_key(case_id)) if key != case_key(case_id, ROOT_KEY)]
    for key in sorted(keys, key=lambda key: key.endswith(ROOT_KEY)):
        data = store.objects.get(key)
        if data is not None:
            target.objects.put(key, data)
