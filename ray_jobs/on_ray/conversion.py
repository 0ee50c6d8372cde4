"""A cohort converted case by case: as Ray tasks on a cluster, else in threads of this process."""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import ray
from rich.console import Console

from ray_jobs.on_ray.conversion_workers import Workers, open_once
from ray_jobs.on_ray.early_conversion import EarlyConversion
from ray_jobs.on_ray.ray_start import refuse_hidden_folder
from ray_jobs.on_ray.settled_search import SettledSearch, find_existing, make_store, settle_search, without_other_scans
from ray_jobs.settings.console import open_console
from storage import CohortStore, InputError, Refusal, find_cases
from storage.archives.kinds import SourceKind, find_kind, place_of
from storage.archives.passing_cases import PassingCases
from storage.archives.ranges import Ranges
from storage.archives.sources import list_source
from storage.archives.stream_cases import StreamListing
from storage.archives.tar_stream import StreamedMember
from storage.cases.info import CaseInfo
from storage.cases.notes import summarise_notes
from storage.labels.conventions import MODALITIES, LabelConvention
from storage.labels.tasks import Task
from storage.scans.case import Case, CaseSearch
from storage.scans.listing import Listing, ScanFile
from storage.scans.task_detection import read_label_values
from storage.store.cohort_conversion import (
    REPORT_KEY,
    ConversionPlan,
    ConversionReport,
    convert_or_refuse,
    finish_conversion,
    plan_conversion,
)
from storage.store.in_use import only_writer
from storage.store.plausibility import cohort_notices
from storage.store.verify import verify_case


def convert_cohort(
    source: str | Path,
    store_uri: str,
    *,
    modalities: Sequence[str] | None = None,
    task: Task | None = None,
    label_map: LabelConvention | None = None,
    names: Mapping[str, str] | None = None,
    subjects: Mapping[str, str] | None = None,
    trust_grid: bool = False,
    console: Console | None = None,
    start_workers: Callable[[], None] = lambda: None,
) -> ConversionReport:
    """Bring every case in the folder or archive `source` into the store, which is made if it is not there.

    What came of each is left in its report.json.

    Only what is missing or changed is converted, side by side (conversion_workers.py); `start_workers` joins the
    cluster, where there is one, and is called only when there is something to do. `task` and `label_map` are what the
    user says of the labels; `names`, `subjects`, `trust_grid` are as in `storage`. Raises InputError when no case is
    complete, the labels' meaning cannot be told, the store belongs to other settings or cannot be written; what was
    finished stays.
    """
    started = time.monotonic()
    console = console or open_console(stderr=True)
    source = place_of(source)
    workers = Workers(console, start_workers, source)
    existing = find_existing(store_uri, modalities, console)
    if existing is not None:
        modalities = existing.settings.modalities
    elif modalities is None and task is not None and task.scans != MODALITIES:
        modalities = task.scans  # whatever the cases are called
    find = partial(find_cases, modalities=modalities, names=names, subjects=subjects, trust_grid=trust_grid)
    committed = existing.committed_cases() if existing is not None else {}
    early = EarlyConversion(existing, committed, task, label_map)
    listing = _list_or_begin(source, find, early, store_uri, modalities, workers, subjects)
    try:
        search = find(listing)
        if not search.cases:
            first = f"; the first of {len(search.refused)} refusals: {search.refused[0]}" if search.refused else ""
            raise InputError(f"wanted complete cases below {source}, found none{first}")
        _refuse_unknown_ids(subjects or {}, search, source)
        committed = {case_id: info for case_id, info in committed.items() if case_id not in early.converted}
        plan = plan_conversion(search.cases, committed, subjects=subjects)
        read_values = partial(_read_values, listing, early, workers)
        settled = settle_search(search, existing, committed, plan.todo, task, label_map, read_values)
    except InputError:
        early.undo()
        raise
    early.compare(settled, damaged=isinstance(listing, StreamListing) and listing.damaged)
    store = early.store or make_store(settled, store_uri, modalities)
    search = without_other_scans(settled.search, store)
    return _carry_out(search, plan, committed, listing, store, workers, early, subjects, started)


def _list_or_begin(
    source: str,
    find: Callable[[Listing], CaseSearch],
    early: EarlyConversion,
    store_uri: str,
    modalities: Sequence[str] | None,
    workers: Workers,
    subjects: Mapping[str, str] | None,
) -> Listing:
    """The files of the source. Of a compressed tar archive cases are converted by the way."""
    if find_kind(source) is not SourceKind.STREAM:
        return list_source(source)

    def make(settled: SettledSearch) -> CohortStore:
        return make_store(settled, store_uri, modalities)

    passing = PassingCases(Ranges(source), find, lambda case: early.accept(case, make))
    early.convert(passing, lambda cases, store: _convert(cases, None, store, workers), subjects)
    return passing.listing()


def _read_values(
    listing: Listing, early: EarlyConversion, workers: Workers, cases: Sequence[Case]
) -> Sequence[Sequence[int] | None]:
    """The values of the cases' labels, of which some have gone by."""
    went_by = {
        case.case_id: early.values[case.label.inside]
        for case in cases
        if isinstance(case.label, StreamedMember) and case.label.inside in early.values
    }
    rest = [case for case in cases if case.case_id not in went_by]
    if isinstance(listing, StreamListing):
        rest = listing.hold_labels(rest)
    found = zip(rest, workers.map(read_label_values, rest, "looking at labels"), strict=True)
    values = went_by | {case.case_id: own for case, own in found}
    return [values[case.case_id] for case in cases]


def _carry_out(
    search: CaseSearch,
    plan: ConversionPlan,
    committed: Mapping[str, CaseInfo],
    listing: Listing,
    store: CohortStore,
    workers: Workers,
    early: EarlyConversion,
    subjects: Mapping[str, str] | None,
    started: float,
) -> ConversionReport:
    """Convert what is not stored yet, as the store's only writer, and leave the report."""
    known = early.refused.keys() | early.same
    rest = {case.case_id: case for case in search.cases if case.case_id not in known}
    plan = plan.of(rest)
    with ExitStack() as stack:
        if plan.todo or early.converted:  # who has nothing to do may be beside another that has
            stack.enter_context(only_writer(store.uri, "wait for its end, or name another store"))
            committed = store.committed_cases()  # the one before may have done it meanwhile
            plan = plan_conversion(rest.values(), committed, subjects=subjects)
        store.check_settings(committed)
        brought: Iterable[Case] = plan.todo
        if isinstance(listing, StreamListing):
            brought = early.leave_same(listing.bring(plan.todo), committed, subjects)
        report = _bring_in(search, brought, store, workers, committed, plan, early)
        report = replace(report, seconds=time.monotonic() - started)
        store.objects.put(REPORT_KEY, report.to_json())
    return report


def _bring_in(
    search: CaseSearch,
    brought: Iterable[Case],
    store: CohortStore,
    workers: Workers,
    committed: Mapping[str, CaseInfo],
    plan: ConversionPlan,
    early: EarlyConversion,
) -> ConversionReport:
    """Convert what is planned, as it is `brought`, and list all in the store's index."""
    keep = {case_id: committed[case_id] for case_id in committed.keys() - set(plan.changed)}
    store.rebuild_index(keep)  # a case about to be replaced must not be listed, should this run be killed
    outcomes = [*early.outcomes(), *_convert(brought, len(plan.todo), store, workers)]
    outcomes.sort(key=lambda outcome: outcome.case_id)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    repeated = (
        finish_conversion(store, earlier=committed.keys() - early.converted.keys()) if plan.todo or outcomes else []
    )
    gone = {refusal.case_id for refusal in repeated}
    converted = [info.case_id for info in outcomes if isinstance(info, CaseInfo) and info.case_id not in gone]
    changed = early.changed.union(plan.changed)
    here = {case.case_id for case in search.cases}
    return ConversionReport(
        store_uri=store.uri,
        task=store.task.name or store.settings.convention.name,
        converted=tuple(converted),
        changed=tuple(case_id for case_id in converted if case_id in changed),
        skipped=tuple(sorted({*plan.skipped, *early.same & here} - gone - early.converted.keys())),
        unlabelled=tuple(info.case_id for info in store.infos() if not info.labelled and info.case_id in here),
        refused=(*search.refused, *refused, *repeated),
        notices=(
            *search.notices,
            *summarise_notes({info.case_id: info.notes for info in outcomes if isinstance(info, CaseInfo)}),
            *cohort_notices(store.infos(), store.task),
        ),
    )


def verify_cohort(
    store: CohortStore,
    *,
    files: Mapping[str, Mapping[str, ScanFile]] | None = None,
    console: Console | None = None,
    start_workers: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Every problem found by reading all of the store again, and the source `files` of each case where given."""
    this = uuid.uuid4().hex  # what an earlier one has opened is read again
    jobs = [(store.uri, this, case_id, dict((files or {}).get(case_id, {}))) for case_id in store.case_ids]
    found = Workers(console or open_console(stderr=True), start_workers).map(_verify_one, jobs, "verifying")
    return tuple(problem for problems in found for problem in problems)


def _refuse_unknown_ids(subjects: Mapping[str, str], search: CaseSearch, source: str) -> None:
    """A misspelt id would leave its exam apart from the person's others: one trains, the other tests."""
    known = {case.case_id for case in search.cases} | {refusal.case_id for refusal in search.refused}
    unknown = [case_id for case_id in subjects if case_id not in known]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise InputError(
            f"--subjects: wanted ids of cases below {source}, such as {search.cases[0].case_id}; "
            f"no case is {', '.join(unknown[:3])}{more}: correct the ids, or leave these lines out"
        )


def _convert(
    cases: Iterable[Case], total: int | None, store: CohortStore, workers: Workers
) -> list[CaseInfo | Refusal]:
    if ray.is_initialized():
        refuse_hidden_folder(store.uri, "store")
    settings = repr(store.settings)
    jobs = ((case, store.uri, settings) for case in cases)
    try:
        return workers.map(
            _convert_one, tuple(jobs) if isinstance(cases, Sequence) else jobs, "converting", total=total
        )
    except InputError:
        with suppress(InputError):  # what was finished before the disk was full, say, is kept and listed
            store.rebuild_index()
        raise


def _convert_one(job: tuple[Case, str, str]) -> CaseInfo | Refusal:
    case, uri, settings = job
    return convert_or_refuse(case, open_once(uri, settings))


def _verify_one(job: tuple[str, str, str, dict[str, ScanFile]]) -> tuple[str, ...]:
    uri, verification, case_id, files = job
    return verify_case(open_once(uri, verification), case_id, files)
