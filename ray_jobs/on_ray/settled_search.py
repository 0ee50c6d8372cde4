"""What a source's labels mean, and the store for them: each case with its task, before any is converted."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from rich.console import Console

from storage import CohortStore, InputError, Refusal
from storage.cases.info import CaseInfo
from storage.errors import CorruptStoreError, UnknownLabelsError
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import TASKS, Task
from storage.scans.case import Case, CaseSearch
from storage.scans.task_detection import need_values, settle_tasks
from storage.store.cohort_store import create_store, find_store
from storage.store.in_use import only_writer


@dataclass(frozen=True, kw_only=True)
class SettledSearch:
    """A search whose cases have their task, the task of the store for them, and what its values mean."""

    search: CaseSearch
    task: Task
    convention: LabelConvention


def find_existing(store_uri: str, modalities: Sequence[str] | None, console: Console) -> CohortStore | None:
    """The store that the cases are to join, if there is one; raises InputError where it has other scans."""
    try:
        existing = find_store(store_uri)
    except CorruptStoreError:
        console.print(f"the index of {store_uri} is damaged and is made anew from its cases")
        return None
    if existing is not None and not existing.case_ids and not existing.committed_cases():
        return None  # nothing of it has a meaning that must be kept: of a first try, all of whose cases were refused
    if existing is not None and modalities is not None and existing.settings.modalities != tuple(modalities):
        raise InputError(
            f"wanted a store of {', '.join(modalities)}, {existing.uri} has {', '.join(existing.settings.modalities)}; "
            "name another store, or leave out --modalities"
        )
    return existing


def settle_search(
    search: CaseSearch,
    existing: CohortStore | None,
    committed: Mapping[str, CaseInfo],
    new: Sequence[Case],
    told: Task | None,
    label_map: LabelConvention | None,
    read_values: Callable[[Sequence[Case]], Sequence[Sequence[int] | None]],
) -> SettledSearch:
    """The cases with what their labels mean, and the task that holds them.

    `committed` are the cases of the existing store and `new` those that are to be converted. Of the others the meaning
    is known; they are asked about only where the user says something.
    """
    todo = new if told is None and label_map is None else search.cases
    if not todo and existing is not None:
        return SettledSearch(search=search, task=existing.task, convention=existing.settings.convention)
    to_read = need_values(new, label_map=label_map)
    found = read_values(to_read)
    settled = settle_tasks(
        todo,
        {case.case_id: values for case, values in zip(to_read, found, strict=True)},
        told=told,
        label_map=label_map,
        joins=existing.task if existing is not None else None,
        joins_values=existing.settings.convention if existing is not None else None,
        decides=tasks_of_labels(search.cases, committed),
    )
    _refuse_other_meaning(settled.cases, committed, str(existing.uri) if existing is not None else "")
    meant = {case.case_id: case for case in settled.cases}
    refused = {refusal.case_id for refusal in settled.refused}
    cases = tuple(meant.get(case.case_id, case) for case in search.cases if case.case_id not in refused)
    return SettledSearch(
        search=replace(
            search,
            cases=cases,
            refused=(*search.refused, *settled.refused),
            notices=(*search.notices, *settled.notices),
        ),
        task=settled.task,
        convention=settled.convention,
    )


def settle_case(
    case: Case,
    values: Sequence[int] | None,
    store: CohortStore | None,
    told: Task | None,
    label_map: LabelConvention | None,
    decides: Sequence[Task],
) -> SettledSearch | None:
    """What the case says by itself; None where that leaves two readings, or another task than the store's."""
    try:
        found = settle_tasks(
            [case],
            {case.case_id: values},
            told=told,
            label_map=label_map,
            joins=store.task if store is not None else None,
            joins_values=store.settings.convention if store is not None else None,
            decides=decides,
        )
    except UnknownLabelsError:
        return None
    search = CaseSearch(cases=found.cases, refused=())
    return SettledSearch(search=search, task=found.task, convention=found.convention) if found.cases else None


def make_store(settled: SettledSearch, store_uri: str, modalities: Sequence[str] | None) -> CohortStore:
    """The store for these cases: of the scans told, else of the task's, else of those that the cases have."""
    cases = settled.search.cases
    scans = settled.task.scans
    if not any(set(scans) <= set(case.files) for case in cases):  # nnU-Net's datasets list theirs, which may be fewer
        scans = tuple(cases[0].files)
    with ExitStack() as held:
        if _is_store(store_uri):  # without a case, and another command may be about to write the first
            held.enter_context(only_writer(store_uri, "wait for its end, or name another store"))
        return create_store(
            store_uri,
            task=settled.task,
            modalities=modalities or scans,
            convention=settled.convention,
            repair=True,
        )


def _is_store(store_uri: str) -> bool:
    try:
        return find_store(store_uri) is not None
    except CorruptStoreError:
        return True


def without_other_scans(search: CaseSearch, store: CohortStore) -> CaseSearch:
    """The search with those cases refused that do not have the store's scans, as exams of another task may not."""
    wanted = store.settings.modalities
    other = [case for case in search.cases if not set(wanted) <= set(case.files)]
    refused = [
        Refusal(
            case_id=case.case_id,
            file=str(next(iter(case.files.values()))),
            finding=f"wanted the store's scans {', '.join(wanted)}, the case has {', '.join(case.files)}",
            remedy="convert it into a store of its own, or name the scans that all have with --modalities",
        )
        for case in other
    ]
    gone = {case.case_id for case in other}
    cases = tuple(case for case in search.cases if case.case_id not in gone)
    return replace(search, cases=cases, refused=(*search.refused, *refused))


def tasks_of_labels(cases: Sequence[Case], committed: Mapping[str, CaseInfo]) -> list[Task]:
    """The tasks that labels of this very source are known to be of, since they are stored.

    Another source's say nothing: PED of 2023 would join a store of 2024 with the wrong meaning. Nor does a case without
    a voxel of a label, which has the task that fitted best.
    """
    stored = [committed[case.case_id] for case in cases if case.case_id in committed]
    labelled = [info.task for info in stored if any(info.region_voxels.values())]
    return [TASKS[name] for name in dict.fromkeys(labelled) if name in TASKS]


def _refuse_other_meaning(cases: Sequence[Case], committed: Mapping[str, CaseInfo], store_uri: str) -> None:
    """What is stored keeps its meaning: with another, runs on the store would go on with other labels."""
    for case in cases:
        info = committed.get(case.case_id)
        if info is not None and case.convention is not None and case.convention.name != info.label_convention:
            raise InputError(
                f"wanted {case.case_id} with labels {info.label_convention}, as it is in {store_uri}, "
                f"and was told {case.convention.name}; name another store"
            )
