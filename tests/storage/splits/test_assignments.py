"""A store remembers who trains: parts and folds only grow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage import (
    CohortStore,
    CorruptStoreError,
    InputError,
    SplitConfig,
    convert_case,
    find_cases,
    fold_cohort,
    open_store,
    split_cohort,
)
from storage.store.objects import Objects


def add_cases(store: CohortStore, writer: Any, folder: Path, count: int) -> None:
    for number in range(count):
        writer.write(folder, f"added_{number}", seed=100 + number)
    for case in find_cases(folder).cases:
        convert_case(case, store)
    store.rebuild_index()


def test_cases_that_are_added_change_nobody_elses_part(
    small_store: CohortStore, case_writer: type[Any], tmp_path: Path
) -> None:
    splits, folds = split_cohort(small_store), fold_cohort(small_store, folds=2)
    digest = small_store.digest
    assert split_cohort(open_store(small_store.uri)) == splits
    assert open_store(small_store.uri).digest == digest
    add_cases(small_store, case_writer(extension=".nii"), tmp_path / "more", 5)
    grown, grown_folds = split_cohort(small_store), fold_cohort(small_store, folds=2)
    for before, after in zip(
        (splits.train, splits.validation, splits.test, *folds),
        (grown.train, grown.validation, grown.test, *grown_folds),
        strict=True,
    ):
        assert set(before) <= set(after)
    assert len(grown.train) + len(grown.validation) + len(grown.test) == 9


def test_a_store_that_may_not_be_written_still_splits(
    small_store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Objects, key: str, data: bytes) -> None:
        raise InputError("no access")

    monkeypatch.setattr(Objects, "put", refuse)
    assert split_cohort(small_store) == split_cohort(small_store)


def test_fixed_parts_are_not_remembered(small_store: CohortStore) -> None:
    ids = small_store.case_ids
    fixed = split_cohort(small_store, SplitConfig(validation_cases=ids[:1], test_cases=ids[1:2]))
    assert fixed.train == ids[2:]
    assert not (Path(small_store.uri) / "splits").exists()


def test_each_fold_validates_once_and_trains_otherwise(small_store: CohortStore) -> None:
    with pytest.raises(InputError, match=r"wanted one of 2 folds: give --splits\.fold"):
        split_cohort(small_store, SplitConfig(folds=2))
    runs = [split_cohort(small_store, SplitConfig(folds=2, fold=fold)) for fold in range(2)]
    assert sorted(case for run in runs for case in run.validation) == list(small_store.case_ids)
    for run in runs:
        assert sorted((*run.train, *run.validation)) == list(small_store.case_ids)
        assert run.test == ()


def test_a_flipped_byte_is_found(small_store: CohortStore, flip_byte: Callable[[Path, int], None]) -> None:
    split_cohort(small_store)
    flip_byte(Path(small_store.uri) / "splits" / "zarr.json", 40)
    with pytest.raises(CorruptStoreError, match=r"splits/zarr\.json was changed"):
        split_cohort(small_store)
