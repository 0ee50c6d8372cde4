"""A cohort converted case by case, as Ray tasks where Ray runs, else here one after the other."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import ray
from rich.console import Console

from ray_jobs.on_ray.ray_start import refuse_hidden_folder, refuse_hidden_source
from ray_jobs.on_ray.settled_search import find_existing, make_store, settle_search, without_other_scans
from ray_jobs.settings.console import tracked
from storage import CohortStore, InputError, Refusal, find_cases, open_store
from storage.cases.info import CaseInfo
from storage.cases.notes import summarise_notes
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import Task
from storage.scans.case import Case, CaseSearch
from storage.scans.listing import ScanFile
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

Item = TypeVar("Item")
Result = TypeVar("Result")


def convert_cohort(
    source: Path,
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
    """Bring every case below `source` into the store, which is made if it is not there; report.json is left in it.

    Only what is missing or changed is converted, one task of one CPU a case where Ray is initialised; `start_workers`
    may initialise it and is called only when there is something to do. `task` and `label_map` are what the user says of
    the labels; `names`, `subjects`, `trust_grid` are as in `storage`. Raises InputError when no case is complete, the
    labels' meaning cannot be told, the store belongs to other settings or cannot be written; what was finished stays.
    """
    started = time.monotonic()
    console = console or Console(stderr=True)
    source = source.resolve()
    existing = find_existing(store_uri, modalities, console)
    if existing is not None:
        modalities = existing.settings.modalities
    search = find_cases(source, modalities=modalities, names=names, subjects=subjects, trust_grid=trust_grid)
    if not search.cases:
        first = f"; the first of {len(search.refused)} refusals: {search.refused[0]}" if search.refused else ""
        raise InputError(f"wanted complete cases below {source}, found none{first}")
    _refuse_unknown_ids(subjects or {}, search, source)
    workers = _Workers(console, start_workers, source)
    settled = settle_search(
        search, existing, task, label_map, lambda cases: workers.map(read_label_values, cases, "looking at labels")
    )
    store = existing or make_store(settled, store_uri, modalities)
    search = without_other_scans(settled.search, store)

    def look() -> tuple[dict[str, CaseInfo], ConversionPlan]:
        committed = store.committed_cases()
        store.check_settings(committed)
        return committed, plan_conversion(search.cases, committed, subjects=subjects)

    with ExitStack() as stack:
        committed, plan = look()
        if plan.todo:  # who has nothing to do may be beside another that has
            stack.enter_context(only_writer(store.uri, "wait for its end, or name another store"))
            committed, plan = look()  # the one before may have done it meanwhile
        report = _bring_in(search, store, workers, committed, plan, started)
        store.objects.put(REPORT_KEY, report.to_json())
    return report


def _bring_in(
    search: CaseSearch,
    store: CohortStore,
    workers: "_Workers",
    committed: Mapping[str, CaseInfo],
    plan: ConversionPlan,
    started: float,
) -> ConversionReport:
    """Convert what is planned, and list all in the store's index."""
    keep = {case_id: info for case_id, info in committed.items() if case_id not in plan.changed}
    store.rebuild_index(keep)  # a case about to be replaced must not be listed, should this run be killed
    outcomes = _convert(plan, store, workers)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
    repeated = finish_conversion(store, earlier=committed) if plan.todo else []
    gone = {refusal.case_id for refusal in repeated}
    converted = [info.case_id for info in outcomes if isinstance(info, CaseInfo) and info.case_id not in gone]
    here = {case.case_id for case in search.cases}
    return ConversionReport(
        store_uri=store.uri,
        task=store.task.name or store.settings.convention.name,
        converted=tuple(converted),
        changed=tuple(case_id for case_id in plan.changed if case_id in converted),
        skipped=tuple(case_id for case_id in plan.skipped if case_id not in gone),
        unlabelled=tuple(info.case_id for info in store.infos() if not info.labelled and info.case_id in here),
        refused=(*search.refused, *refused, *repeated),
        notices=(
            *search.notices,
            *summarise_notes({info.case_id: info.notes for info in outcomes if isinstance(info, CaseInfo)}),
            *cohort_notices(store.infos(), store.task),
        ),
        seconds=time.monotonic() - started,
    )


def verify_cohort(
    store: CohortStore,
    *,
    files: Mapping[str, Mapping[str, ScanFile]] | None = None,
    console: Console | None = None,
    start_workers: Callable[[], None] = lambda: None,
) -> tuple[str, ...]:
    """Every problem found by reading all of the store again, and the source `files` of each case where given."""
    jobs = [(store.uri, case_id, dict((files or {}).get(case_id, {}))) for case_id in store.case_ids]
    found = _Workers(console or Console(stderr=True), start_workers).map(_verify_one, jobs, "verifying")
    return tuple(problem for problems in found for problem in problems)


def _refuse_unknown_ids(subjects: Mapping[str, str], search: CaseSearch, source: Path) -> None:
    """A misspelt id would leave its exam apart from the person's others: one trains, the other tests."""
    known = {case.case_id for case in search.cases} | {refusal.case_id for refusal in search.refused}
    unknown = [case_id for case_id in subjects if case_id not in known]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise InputError(
            f"--subjects: wanted ids of cases below {source}, such as {search.cases[0].case_id}; "
            f"no case is {', '.join(unknown[:3])}{more}: correct the ids, or leave these lines out"
        )


def _convert(plan: ConversionPlan, store: CohortStore, workers: "_Workers") -> list[CaseInfo | Refusal]:
    if ray.is_initialized():
        refuse_hidden_folder(store.uri, "store")
    try:
        return workers.map(_convert_one, [(case, store.uri) for case in plan.todo], "converting")
    except InputError:
        with suppress(InputError):  # what was finished before the disk was full, say, is kept and listed
            store.rebuild_index()
        raise


def _convert_one(job: tuple[Case, str]) -> CaseInfo | Refusal:
    case, uri = job
    return convert_or_refuse(case, _open_once(uri))


def _verify_one(job: tuple[str, str, dict[str, ScanFile]]) -> tuple[str, ...]:
    uri, case_id, files = job
    return verify_case(open_store(uri), case_id, files)


@lru_cache(maxsize=1)
def _open_once(uri: str) -> CohortStore:
    """A worker converts many cases of one store; its settings do not change while it does."""
    return open_store(uri)


class _Workers:
    """Runs a function of many items: as Ray tasks where Ray runs, else here, with a progress bar."""

    def __init__(self, console: Console, start: Callable[[], None], source: Path | None = None) -> None:
        self.console = console
        self._start = start
        self._source = source

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
        """`function` of every item, in order. The first InputError stops the rest."""
        if not items:
            return []
        if not ray.is_initialized() and len(items) > 1:
            self._start()
        if ray.is_initialized() and self._source is not None:
            refuse_hidden_source(self._source)
        results = dict(tracked(_run_all(function, items), self.console, title, total=len(items)))
        return [results[index] for index in range(len(items))]


def _run_all(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
    if not ray.is_initialized():
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    remote = ray.remote(num_cpus=1)(function)
    index_of = {remote.remote(item): index for index, item in enumerate(items)}
    waiting = list(index_of)
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            yield index_of[done], ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, InputError):
            raise cause from None  # its one line, without the worker's stack trace
        raise
    finally:
        for reference in waiting:
            ray.cancel(reference)
