"""Which case trains, which validates, which tests: decided once for each subject, by hash and seed, and then kept.

New subjects are dealt out in the order of their hash, each to the part that is furthest below its share within the
subject's grade. Subjects that have a part keep it, so parts only grow; the store remembers them (`split_cohort`).
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from storage.cases.info import CaseInfo
from storage.errors import InputError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shares of the subjects, a seed, or the cases themselves.

    A share of 0 makes no such part. `validation_cases` and `test_cases` fix the assignment: what is in neither list
    trains. They exclude shares.
    `folds` is k-fold cross-validation: part `fold` of that many validates, the others train, and none tests.
    Raises ValueError for shares, folds or lists that leave a part without a meaning.
    """

    seed: int = 0
    """Of the hash that deals the subjects out: another seed, another assignment."""
    validation_fraction: float = 0.15
    """Share of the subjects that validates: thresholds and the best checkpoint are chosen on it. 0: nothing is chosen,
    the last checkpoint is kept, and its thresholds are 0.5."""
    test_fraction: float = 0.15
    """Share of the subjects that tests, once at the end; what neither tests nor validates trains. 0: none tests."""
    validation_cases: tuple[str, ...] = ()
    """Ids of the cases that validate, in place of shares; goes with the test cases, and the others train."""
    test_cases: tuple[str, ...] = ()
    """Ids of the cases that test, in place of shares."""
    folds: int | None = None
    """Parts of a cross-validation, in place of shares: one validates, the others train, none tests. Default: none."""
    fold: int | None = None
    """The part that validates, from 0 to folds - 1. Default: each in turn, which is a whole cross-validation."""

    def __post_init__(self) -> None:
        if self.folds is not None and self.validation_cases:
            raise ValueError("folds and validation_cases exclude each other: give one of them")
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"wanted at least 2 folds, got {self.folds}")
        if self.folds is not None and self.fold is not None and not 0 <= self.fold < self.folds:
            raise ValueError(f"wanted a fold from 0 to {self.folds - 1} of {self.folds} folds, got fold {self.fold}")
        for name, value in (("validation", self.validation_fraction), ("test", self.test_fraction)):
            if not 0.0 <= value < 1.0:
                raise ValueError(f"wanted a {name}_fraction of 0 or more and below 1, got {value}")
        if self.validation_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"validation_fraction {self.validation_fraction} and test_fraction {self.test_fraction} leave nothing "
                f"to train on; lower one"
            )
        if bool(self.validation_cases) != bool(self.test_cases):
            raise ValueError("validation_cases and test_cases go together: give both or neither")

    @property
    def key(self) -> str:
        """The name under which a store keeps these assignments."""
        return f"seed{self.seed}-validation{self.validation_fraction:g}-test{self.test_fraction:g}"

    @property
    def shares(self) -> dict[str, float]:
        """The share of the subjects of each part that there is, where shares are dealt."""
        rest = 1.0 - self.validation_fraction - self.test_fraction
        every = zip(PARTS, (rest, self.validation_fraction, self.test_fraction), strict=True)
        return {part: share for part, share in every if share > 0}

    @property
    def parts(self) -> tuple[str, ...]:
        """What each wants a subject of its own: the folds, or the parts that there are."""
        if self.folds is not None:
            return tuple(f"fold {fold}" for fold in range(self.folds))
        return PARTS if self.validation_cases else tuple(self.shares)

    @property
    def validates(self) -> bool:
        """Whether any case validates."""
        return self.folds is not None or bool(self.validation_cases) or self.validation_fraction > 0

    def of_fold(self, fold: int) -> Self:
        """This with one fold named."""
        return replace(self, fold=fold)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Case ids by part, each sorted. `unlabelled` are in none of them: nothing can be learnt or scored there."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()


def assign_splits(
    infos: Iterable[CaseInfo], config: SplitConfig | None = None, *, known: Mapping[str, str] | None = None
) -> Splits:
    """Train, validation and test parts of the labelled cases, whole subjects at a time.

    `known` maps subjects to the part they already have. Raises InputError when there are fewer labelled subjects than
    parts, or when fixed lists name unknown cases, a case twice, or parts of one subject.
    """
    config = config or SplitConfig()
    cases = sorted(infos, key=lambda info: info.case_id)
    labelled = [info for info in cases if info.labelled]
    if config.validation_cases:
        part_of_subject = _fixed_parts(labelled, config)
    else:
        part_of_subject = _deal(labelled, config.shares, config.seed, known or {})
    by_part: dict[str, list[str]] = defaultdict(list)
    for info in labelled:
        by_part[part_of_subject[info.subject]].append(info.case_id)
    return Splits(
        train=tuple(by_part["train"]),
        validation=tuple(by_part["validation"]),
        test=tuple(by_part["test"]),
        unlabelled=tuple(info.case_id for info in cases if not info.labelled),
    )


def part_by_subject(infos: Iterable[CaseInfo], splits: Splits) -> dict[str, str]:
    """The part of each subject under `splits`: what `assign_splits` takes as `known` when cases are added."""
    subject_of = {info.case_id: info.subject for info in infos}
    named = zip(PARTS, (splits.train, splits.validation, splits.test), strict=True)
    return {subject_of[case_id]: part for part, case_ids in named for case_id in case_ids}


def assign_folds(
    infos: Iterable[CaseInfo], *, folds: int = 5, seed: int = 0, known: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Case ids of each of `folds` parts of the labelled cases; fold i validates on part i and trains on the others.

    `known` maps subjects to the part they already have, as text. Raises InputError for fewer than 2 folds or more than
    there are subjects.
    """
    if folds < 2:
        raise InputError(f"wanted at least 2 folds, got {folds}")
    labelled = sorted((info for info in infos if info.labelled), key=lambda info: info.case_id)
    subjects = len({info.subject for info in labelled})
    if subjects < folds:
        fewer = f", or take --splits.folds {subjects} or fewer" if subjects >= 2 else ""
        raise InputError(
            f"wanted at least {folds} labelled subjects, one for each fold, found {subjects}; add cases{fewer}"
        )
    names = [str(index) for index in range(folds)]
    part_of_subject = _deal(labelled, dict.fromkeys(names, 1.0 / folds), seed, known or {})
    return tuple(tuple(info.case_id for info in labelled if part_of_subject[info.subject] == name) for name in names)


def _deal(
    labelled: Sequence[CaseInfo], shares: Mapping[str, float], seed: int, known: Mapping[str, str]
) -> dict[str, str]:
    grade_of = {info.subject: info.grade or "" for info in labelled}
    if len(grade_of) < len(shares):
        raise InputError(
            f"wanted at least {len(shares)} labelled subjects, one for each of {', '.join(shares)}; "
            f"found {len(grade_of)}; add cases"
        )
    parts = {subject: part for subject, part in known.items() if subject in grade_of and part in shares}
    new = sorted(set(grade_of) - set(parts), key=lambda subject: _hash(seed, subject))
    in_stratum: Counter[tuple[str, str]] = Counter((grade_of[subject], part) for subject, part in parts.items())
    in_all: Counter[str] = Counter(parts.values())
    for position, subject in enumerate(new):
        grade = grade_of[subject]
        empty = [part for part in shares if not in_all[part]]
        # The last subjects are owed to parts that would stay empty: a part without a subject scores nothing.
        allowed = empty if len(new) - position <= len(empty) else list(shares)
        size = 1 + sum(in_stratum[grade, part] for part in shares)
        total = 1 + sum(in_all.values())
        part = max(
            allowed,
            key=lambda part: (
                shares[part] * size - in_stratum[grade, part],
                shares[part] * total - in_all[part],
                shares[part],
            ),
        )
        parts[subject] = part
        in_stratum[grade, part] += 1
        in_all[part] += 1
    if any(not in_all[part] for part in shares):
        empty_names = ", ".join(part for part in shares if not in_all[part])
        raise InputError(f"wanted a subject in each of {', '.join(shares)}, found none for {empty_names}; add cases")
    return parts


def _fixed_parts(labelled: Sequence[CaseInfo], config: SplitConfig) -> dict[str, str]:
    subject_of = {info.case_id: info.subject for info in labelled}
    parts: dict[str, str] = {}
    part_of_case: dict[str, str] = {}
    for part, case_ids in (("validation", config.validation_cases), ("test", config.test_cases)):
        for case_id in case_ids:
            if case_id not in subject_of:
                raise InputError(f"wanted labelled cases in {part}_cases, {case_id} is none of this store")
            if part_of_case.setdefault(case_id, part) != part:
                raise InputError(f"case {case_id} is in validation_cases and in test_cases; keep it in one")
            if parts.setdefault(subject_of[case_id], part) != part:
                raise InputError(
                    f"subject {subject_of[case_id]} has cases in validation and in test; keep them together"
                )
    for case_id, subject in subject_of.items():
        if subject in parts and case_id not in part_of_case:
            raise InputError(
                f"case {case_id} would train while another exam of {subject} is in {parts[subject]}; list both"
            )
        parts.setdefault(subject, "train")
    if "train" not in parts.values():
        raise InputError("validation_cases and test_cases leave no case to train on; shorten them")
    return parts


def _hash(seed: int, subject: str) -> str:
    return hashlib.sha256(f"{seed}:{subject}".encode()).hexdigest()
