"""Splits are deterministic, whole by subject, close to their shares within each grade, and only ever grow."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from storage import InputError, SplitConfig, assign_folds, assign_splits
from storage.cases.info import CaseInfo
from storage.splits.splits import Splits, part_by_subject


def info(case_id: str, *, subject: str | None = None, grade: str | None = None, labelled: bool = True) -> CaseInfo:
    empty: dict[str, Any] = {
        "modalities": ("flair",), "label_convention": "brats-124", "label_lossy": False, "shape": (1, 1, 1),
        "bbox": ((0, 1), (0, 1), (0, 1)), "original_shape": (1, 1, 1), "orientation": "LPS", "spacing": (1, 1, 1),
        "affine": (), "source_shape": (1, 1, 1), "source_orientation": "LPS", "source_affine": (), "brain_voxels": 1,
        "mean": (0.0,), "std": (1.0,), "minimum": (0.0,), "maximum": (0.0,), "percentiles": {}, "region_voxels": {},
        "sources": {}, "arrays": {},
    }  # fmt: skip
    return CaseInfo(case_id=case_id, subject=subject or case_id, grade=grade, labelled=labelled, **empty)


def cohort(count: int, start: int = 0) -> list[CaseInfo]:
    return [info(f"C{number:04d}", grade="LGG" if number % 4 == 0 else "HGG") for number in range(start, start + count)]


def parts(splits: Splits) -> dict[str, str]:
    named = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {case_id: part for part, case_ids in named.items() for case_id in case_ids}


@pytest.mark.parametrize("count", [3, 4, 6, 12, 16, 100, 1251])
def test_every_case_has_one_part_and_no_part_is_empty(count: int) -> None:
    splits = assign_splits(cohort(count))
    assert len(parts(splits)) == len(splits.train) + len(splits.validation) + len(splits.test) == count
    assert all((splits.train, splits.validation, splits.test))


def test_shares_hold_in_all_and_within_each_grade() -> None:
    infos = cohort(400)
    splits = assign_splits(infos)
    grade_of = {item.case_id: item.grade for item in infos}
    for grade, total in (("HGG", 300), ("LGG", 100)):
        found = Counter(part for case_id, part in parts(splits).items() if grade_of[case_id] == grade)
        assert abs(found["validation"] - 0.15 * total) <= 2
        assert abs(found["test"] - 0.15 * total) <= 2


def test_order_does_not_matter_and_the_seed_does() -> None:
    infos = cohort(60)
    assert assign_splits(infos) == assign_splits(reversed(infos))
    assert assign_splits(infos) != assign_splits(infos, SplitConfig(seed=1))


def test_exams_of_one_subject_stay_together() -> None:
    infos = [info(f"BraTS-GLI-{n:05d}-{exam}", subject=f"BraTS-GLI-{n:05d}") for n in range(30) for exam in (100, 101)]
    part_of = parts(assign_splits(infos))
    assert all(part_of[f"BraTS-GLI-{n:05d}-100"] == part_of[f"BraTS-GLI-{n:05d}-101"] for n in range(30))


def test_cases_that_are_added_change_nobody_elses_part() -> None:
    before = assign_splits(cohort(40))
    known = part_by_subject(cohort(40), before)
    after = assign_splits(cohort(90), known=known)
    assert parts(before).items() <= parts(after).items()
    assert abs(len(after.test) - 0.15 * 90) <= 2


def test_unlabelled_cases_are_counted_apart() -> None:
    splits = assign_splits([*cohort(10), info("U", labelled=False)])
    assert splits.unlabelled == ("U",)
    assert "U" not in parts(splits)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_subjects_name_the_minimum(count: int) -> None:
    with pytest.raises(InputError, match=f"wanted at least 3 labelled subjects.*found {count}"):
        assign_splits(cohort(count))


def test_a_fixed_assignment() -> None:
    infos = cohort(16)
    ids = [item.case_id for item in infos]
    splits = assign_splits(infos, SplitConfig(validation_cases=tuple(ids[10:12]), test_cases=tuple(ids[12:])))
    assert (splits.train, splits.validation, splits.test) == (tuple(ids[:10]), tuple(ids[10:12]), tuple(ids[12:]))


@pytest.mark.parametrize(
    ("validation", "test", "words"),
    [
        (("X",), ("C0001",), "X is none of this store"),
        (("C0001",), ("C0001",), "in validation_cases and in test_cases"),
        (("A-1",), ("C0001",), "case A-2 would train"),
        (("A-1",), ("A-2",), "keep them together"),
        (("C0000", "A-1", "A-2"), ("C0001", "C0002"), "no case to train on"),
    ],
)
def test_fixed_assignments_that_cannot_be(validation: Sequence[str], test: Sequence[str], words: str) -> None:
    infos = [*cohort(3), info("A-1", subject="A"), info("A-2", subject="A")]
    with pytest.raises(InputError, match=words):
        assign_splits(infos, SplitConfig(validation_cases=tuple(validation), test_cases=tuple(test)))


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.5, 0.5), (1.2, 0.1), (0.0, 1.0)])
def test_shares_that_leave_nothing_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"wanted|nothing"):
        SplitConfig(validation_fraction=shares[0], test_fraction=shares[1])


@pytest.mark.parametrize(
    ("validation", "test", "there"),
    [(0.0, 0.2, {"train", "test"}), (0.2, 0.0, {"train", "validation"}), (0.0, 0.0, {"train"})],
)
def test_a_share_of_0_makes_no_such_part(validation: float, test: float, there: set[str]) -> None:
    config = SplitConfig(validation_fraction=validation, test_fraction=test)
    infos = cohort(40)
    part_of = parts(assign_splits(infos, config))
    assert len(part_of) == 40 and set(part_of.values()) == there == set(config.parts)
    assert config.validates == (validation > 0)
    grown = assign_splits(cohort(60), config, known=part_of)
    assert part_of.items() <= parts(grown).items() and set(parts(grown).values()) == there
    assert len(parts(assign_splits(cohort(len(there)), config))) == len(there)  # as few subjects as that will do


def test_folds_cover_every_case_once_and_keep_subjects_and_shares() -> None:
    infos = [*cohort(101), info("A-1", subject="A"), info("A-2", subject="A")]
    folds = assign_folds(infos, folds=5, seed=3)
    assert sorted(case_id for fold in folds for case_id in fold) == sorted(item.case_id for item in infos)
    assert max(map(len, folds)) - min(map(len, folds)) <= 3
    assert sum({"A-1", "A-2"} <= set(fold) for fold in folds) == 1


def test_too_few_subjects_for_the_folds() -> None:
    with pytest.raises(InputError, match=r"wanted at least 5 labelled subjects.*found 4; .*--splits\.folds 4 or fewer"):
        assign_folds(cohort(4), folds=5)
    with pytest.raises(InputError, match=r"found 1; add cases$"):
        assign_folds(cohort(1), folds=2)


@pytest.mark.parametrize(
    ("folds", "fold", "words"),
    [(1, 0, "at least 2 folds"), (5, 5, "a fold from 0 to 4 of 5"), (5, -1, "a fold from 0 to 4 of 5")],
)
def test_a_fold_that_is_not_there_is_refused(folds: int, fold: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SplitConfig(folds=folds, fold=fold)


def test_folds_and_fixed_cases_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        SplitConfig(folds=5, validation_cases=("a",), test_cases=("b",))
