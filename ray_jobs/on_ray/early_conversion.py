"""Cases of a compressed tar archive that are converted in its first pass, before all of it is known."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from ray_jobs.on_ray.settled_search import SettledSearch, without_other_scans
from storage import CohortStore, Refusal
from storage.archives.tar_stream import StreamedMember
from storage.cases.info import CaseInfo
from storage.errors import UnknownLabelsError
from storage.labels.tasks import Task
from storage.scans.case import Case, CaseSearch, files_of
from storage.scans.gunzip import is_gzip
from storage.scans.listing import ScanFile
from storage.scans.task_detection import settle_tasks
from storage.store.case_conversion import correct_grade
from storage.store.cohort_conversion import plan_conversion
from storage.store.in_use import only_writer


@dataclass(kw_only=True)
class EarlyConversion:
    """What came of the first pass, and the store, where there is one by now.

    `same` are cases that are stored already, as a look at their bytes showed; `unsure` those with files that have no
    checksum of their own.
    """

    store: CohortStore | None
    converted: dict[str, CaseInfo] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    same: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)

    def outcomes_of(self, search: CaseSearch) -> list[CaseInfo | Refusal]:
        """Of those that still are cases once all is known."""
        cases = {case.case_id for case in search.cases}
        refused = [refusal for case_id, refusal in self.refused.items() if case_id in cases]
        return [*self.converted.values(), *refused]


def convert_early(
    passing: Iterable[Case],
    existing: CohortStore | None,
    told: Task,
    *,
    make: Callable[[SettledSearch], CohortStore],
    convert: Callable[[Iterable[Case], CohortStore], list[CaseInfo | Refusal]],
    subjects: Mapping[str, str] | None,
) -> EarlyConversion:
    """Convert each case that comes by, is of the task that was told, and is not stored yet.

    Where there is no store `make` makes it when the first case comes.
    """
    early = EarlyConversion(store=existing)
    coming = _settled(passing, existing, told)
    first = next(coming, None)
    if first is None:
        return early
    early.store = store = existing or make(first)
    with only_writer(store.uri, "wait for its end, or name another store"):
        committed = store.committed_cases()
        store.check_settings(committed)
        store.rebuild_index(committed)

        def todo() -> Iterator[Case]:
            given: set[str] = set()
            for settled in chain([first], coming):
                for case in without_other_scans(settled.search, store).cases:
                    if case.case_id in given:  # which of two is meant is said when all is known
                        continue
                    given.add(case.case_id)
                    stored = committed.get(case.case_id)
                    if stored is not None and case.convention and case.convention.name != stored.label_convention:
                        continue  # refused at the end, with all of the command
                    plan = plan_conversion([case], committed, subjects=subjects)
                    if plan.skipped:
                        early.same.add(case.case_id)
                        continue
                    if plan.changed:  # not listed while it is replaced
                        early.changed.add(case.case_id)
                        del committed[case.case_id]
                        store.rebuild_index(committed)
                    if not all(map(_has_checksum, files_of(case).values())):
                        early.unsure.add(case.case_id)
                    yield case

        for outcome in convert(todo(), store):
            if isinstance(outcome, Refusal):
                early.refused[outcome.case_id] = outcome
            else:
                early.converted[outcome.case_id] = outcome
    return early


def _settled(cases: Iterable[Case], existing: CohortStore | None, told: Task) -> Iterator[SettledSearch]:
    """Each case with what its labels mean, as the user told. Who is of another task is left for the end, to be said."""
    joins = existing.task if existing is not None else None
    joins_values = existing.settings.convention if existing is not None else None
    for case in cases:
        with suppress(UnknownLabelsError):
            found = settle_tasks([case], {}, told=told, joins=joins, joins_values=joins_values)
            search = CaseSearch(cases=found.cases, refused=())
            yield SettledSearch(search=search, task=found.task, convention=found.convention)


def leave_same(
    cases: Iterable[Case], stored: Mapping[str, CaseInfo], subjects: Mapping[str, str] | None, early: EarlyConversion
) -> Iterator[Case]:
    """Those that are not stored from the same bytes: of a compressed archive this is only known when they come by."""
    for case in cases:
        if plan_conversion([case], stored, subjects=subjects).skipped:
            early.same.add(case.case_id)
        else:
            yield case


def _has_checksum(file: ScanFile) -> bool:
    return isinstance(file, StreamedMember) and file.data is not None and is_gzip(file.data)


def take_back(early: EarlyConversion, search: CaseSearch, store: CohortStore, *, damaged: bool) -> None:
    """Undo what turned out otherwise when all of the archive was known: it is converted again, or refused."""
    cases = {case.case_id: case for case in search.cases}
    for case_id, info in list(early.converted.items()):
        case = cases.get(case_id)
        if case is None or (damaged and case_id in early.unsure):
            store.remove_case(case_id)
            del early.converted[case_id]
        elif case.grade != info.grade:  # a name_mapping.csv often comes last
            early.converted[case_id] = correct_grade(store, info, case.grade)
