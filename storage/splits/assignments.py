"""The parts and folds that a store has given to subjects, kept in it so that they only ever grow.

They lie in the attributes of the Zarr group `splits`, apart from the index: what a store holds does not depend on how
it is used.
"""

from collections.abc import Mapping

from storage.errors import CorruptStoreError, InputError
from storage.splits.splits import SplitConfig, Splits, assign_folds, assign_splits, part_by_subject
from storage.store.cohort_store import CohortStore
from storage.store.index import ASSIGNMENTS_KEY, decode_sealed, encode_sealed


def split_cohort(store: CohortStore, config: SplitConfig | None = None, *, remember: bool = True) -> Splits:
    """`assign_splits` of the store's cases; subjects keep the part they were once given under the same config.

    Where the store may not be written, or `remember` is off, the same cases give the same parts, but additions are not
    remembered. Raises InputError as `assign_splits` does, and for folds of which none is named.
    """
    config = config or SplitConfig()
    if config.validation_cases:
        return assign_splits(store.infos(), config)
    if config.folds is not None:
        if config.fold is None:
            raise InputError(f"wanted one of {config.folds} folds: give --splits.fold")
        parts = fold_cohort(store, folds=config.folds, seed=config.seed, remember=remember)
        return Splits(
            train=tuple(sorted(case for index, part in enumerate(parts) if index != config.fold for case in part)),
            validation=parts[config.fold],
            test=(),
            unlabelled=tuple(info.case_id for info in store.infos() if not info.labelled),
        )
    kept = _read(store)
    splits = assign_splits(store.infos(), config, known=kept.get(config.key))
    if remember:
        _keep(store, kept, config.key, part_by_subject(store.infos(), splits))
    return splits


def fold_cohort(
    store: CohortStore, *, folds: int = 5, seed: int = 0, remember: bool = True
) -> tuple[tuple[str, ...], ...]:
    """`assign_folds` of the store's cases; subjects keep the fold they were once given, as `split_cohort` says.

    Raises InputError as `assign_folds` does.
    """
    key = f"seed{seed}-folds{folds}"
    kept = _read(store)
    parts = assign_folds(store.infos(), folds=folds, seed=seed, known=kept.get(key))
    subject_of = {info.case_id: info.subject for info in store.infos()}
    given = {subject_of[case_id]: str(index) for index, part in enumerate(parts) for case_id in part}
    if remember:
        _keep(store, kept, key, given)
    return parts


def _read(store: CohortStore) -> dict[str, dict[str, str]]:
    raw = store.objects.get(ASSIGNMENTS_KEY)
    if raw is None:
        return {}
    try:
        assignments: dict[str, dict[str, str]] = decode_sealed(raw, f"{store.uri}/{ASSIGNMENTS_KEY}")["assignments"]
    except CorruptStoreError:
        raise CorruptStoreError(
            f"{store.uri}/{ASSIGNMENTS_KEY} was changed since it was written; "
            "bring back a copy, or delete it to deal all anew"
        ) from None
    return assignments


def _keep(store: CohortStore, kept: Mapping[str, Mapping[str, str]], key: str, given: Mapping[str, str]) -> None:
    grown = {**kept.get(key, {}), **given}
    if grown == kept.get(key):
        return
    try:
        store.objects.put(ASSIGNMENTS_KEY, encode_sealed({"assignments": {**kept, key: grown}}))
    except InputError:  # a bucket that this user may only read; the parts are the same next time
        return
