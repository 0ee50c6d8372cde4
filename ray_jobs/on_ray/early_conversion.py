"""Cases of a compressed tar archive that are converted in its one pass, before all of it is known.

Each is taken for what it says by itself. When all is known it is compared with what that says, and taken back where it
is otherwise.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath

from ray_jobs.on_ray.settled_search import SettledSearch, settle_case, tasks_of_labels
from storage import CohortStore, Refusal
from storage.archives.tar_stream import StreamedMember
from storage.cases.info import CaseInfo
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import Task
from storage.scans.case import Case, files_of
from storage.scans.gunzip import is_gzip
from storage.scans.listing import ScanFile
from storage.scans.task_detection import need_values, read_label_values
from storage.store.case_conversion import correct_grade
from storage.store.cohort_conversion import plan_conversion
from storage.store.cohort_store import CASES
from storage.store.in_use import only_writer
from storage.store.index import ROOT_KEY

_WAIT = "wait for its end, or name another store"


class EarlyConversion:
    """What is converted in the one pass, and what came of it.

    `store` is the one that is there, or that was `made` when the first case came. `values` are those of the labels that
    came by. `same` are cases that are stored already, as a look at their bytes showed; `unsure` those with files that
    have no checksum of their own.
    """

    def __init__(
        self,
        existing: CohortStore | None,
        committed: Mapping[str, CaseInfo],
        told: Task | None,
        label_map: LabelConvention | None,
    ) -> None:
        self.store: CohortStore | None = existing
        self.made = False
        self.values: dict[PurePosixPath, Sequence[int] | None] = {}
        self.converted: dict[str, CaseInfo] = {}
        self.refused: dict[str, Refusal] = {}
        self.changed: set[str] = set()
        self.same: set[str] = set()
        self.unsure: set[str] = set()
        self._meant: dict[str, Case] = {}
        self._told, self._label_map = told, label_map
        self._committed = dict(committed)

    def accept(self, case: Case, make: Callable[[SettledSearch], CohortStore]) -> Case | None:
        """The case with what its labels mean, where it alone says so; the store is made for the first."""
        values = None
        if need_values([case], label_map=self._label_map) and isinstance(case.label, StreamedMember):
            values = self.values[case.label.inside] = read_label_values(case)
        decides = tasks_of_labels([case], self._committed)  # what is stored of others waits until all is known
        settled = settle_case(case, values, self.store, self._told, self._label_map, decides)
        stored = self._committed.get(case.case_id)
        if settled is None or case.case_id in self._meant:  # which of two is meant is said when all is known
            return None
        (meant,) = settled.search.cases
        if stored is not None and meant.convention and meant.convention.name != stored.label_convention:
            return None
        if self.store is None:
            self.store, self.made = make(settled), True
        if not set(self.store.settings.modalities) <= set(case.files):
            return None
        self._meant[case.case_id] = meant
        return meant

    def convert(
        self,
        passing: Iterable[Case],
        convert: Callable[[Iterable[Case], CohortStore], list[CaseInfo | Refusal]],
        subjects: Mapping[str, str] | None,
    ) -> None:
        """Convert each case that comes by and is not stored yet."""
        coming = iter(passing)
        first = next(coming, None)
        if first is None or self.store is None:
            return
        with only_writer(self.store.uri, _WAIT):
            self.store.check_settings(self._committed)
            self.store.rebuild_index(self._committed)
            for outcome in convert(self._todo(chain([first], coming), self.store, subjects), self.store):
                if isinstance(outcome, Refusal):
                    self.refused[outcome.case_id] = outcome
                else:
                    self.converted[outcome.case_id] = outcome

    def _todo(self, cases: Iterable[Case], store: CohortStore, subjects: Mapping[str, str] | None) -> Iterator[Case]:
        for case in cases:
            plan = plan_conversion([case], self._committed, subjects=subjects)
            if plan.skipped:
                self.same.add(case.case_id)
                continue
            if plan.changed:  # not listed while it is replaced
                self.changed.add(case.case_id)
                del self._committed[case.case_id]
                store.rebuild_index(self._committed)
            if not all(map(_has_checksum, files_of(case).values())):
                self.unsure.add(case.case_id)
            yield case

    def leave_same(
        self, cases: Iterable[Case], stored: Mapping[str, CaseInfo], subjects: Mapping[str, str] | None
    ) -> Iterator[Case]:
        """Those that are not stored from the same bytes, which is only known when they come by."""
        for case in cases:
            if plan_conversion([case], stored, subjects=subjects).skipped:
                self.same.add(case.case_id)
            else:
                yield case

    def outcomes(self) -> list[CaseInfo | Refusal]:
        """What stays of it."""
        return [*self.converted.values(), *self.refused.values()]

    def compare(self, settled: SettledSearch, *, damaged: bool) -> None:
        """Take back what is otherwise now that all of the archive is known: it is converted again, or refused."""
        if self.store is None:
            return
        settings = self.store.settings
        if self.made and (settled.task, settled.convention) != (self.store.task, settings.convention):
            self.undo()
            return
        cases = {case.case_id: case for case in settled.search.cases}
        with only_writer(self.store.uri, _WAIT):
            for case_id, meant in self._meant.items():
                case, info = cases.get(case_id), self.converted.get(case_id)
                other = case is None or (case.task, case.convention) != (meant.task, meant.convention)
                if other:
                    self.refused.pop(case_id, None)
                if info is not None and (other or (damaged and case_id in self.unsure)):
                    self.store.remove_case(case_id)
                    del self.converted[case_id]
                elif info is not None and case is not None and case.grade != info.grade:
                    # A name_mapping.csv often comes last.
                    self.converted[case_id] = correct_grade(self.store, info, case.grade)

    def undo(self) -> None:
        """Take all of it back, and the store that was made for it."""
        if self.store is None:
            return
        with only_writer(self.store.uri, _WAIT):
            for case_id in self.converted:
                self.store.remove_case(case_id)
            if self.made:
                self.store.objects.delete(ROOT_KEY)
                self.store.objects.delete_folder(CASES)
                self.store, self.made = None, False
            else:
                self.store.rebuild_index()
        self.converted.clear()
        self.refused.clear()


def _has_checksum(file: ScanFile) -> bool:
    return isinstance(file, StreamedMember) and file.data is not None and is_gzip(file.data)
