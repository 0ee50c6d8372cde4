"""What is to be predicted: the cases of a store, or of a folder of NIfTI files as they are."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray_jobs.checkpoints.trained_on import OWN_TASK_ONLY, refuse_other_regions
from ray_jobs.on_ray.ray_start import refuse_hidden_folder, refuse_hidden_source
from ray_jobs.on_ray.spread import spread
from ray_jobs.predicting.folder import describe_file
from ray_jobs.predicting.predict_config import find_input, is_store
from ray_jobs.predicting.reading import FolderInput, StoreInput
from storage import Case, InputError, Refusal, Task, find_cases, list_source, open_store
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import tasks_named
from storage.scans.case import files_of
from storage.scans.task_detection import need_values, read_label_values, settle_tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What the user says of the labels."""

    task: Task | None
    label_map: LabelConvention | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort:
    """Complete cases with what tells whether one has changed, those refused by their names alone, and how to read.

    `conventions` are what the values of their labels mean.
    """

    uri: str
    task: Task
    conventions: Sequence[LabelConvention]
    sources: Mapping[str, Mapping[str, Any]]
    source: StoreInput | FolderInput
    refused: tuple[Refusal, ...] = ()
    notices: tuple[str, ...] = ()


def open_cohort(
    place: str,
    task: Task,
    *,
    modalities: Sequence[str],
    names: Mapping[str, str],
    told: Told,
    workers: int,
    trust_grid: bool = False,
    some_scans: bool = False,
) -> Cohort:
    """Look at the store, folder or archive at `place`, to be predicted by networks of `task`; Ray must run.

    Of cases whose names and values leave two readings, that of the networks is taken. With `some_scans` a case of a
    folder may lack scans, as long as it has one. Raises InputError where nothing can be predicted, where the meaning of
    labels cannot be told or is another task's, and for a place that some node does not see.
    """
    if is_store(place):
        return _open_store(place, task, modalities)
    folder, _ = find_input(place)
    refuse_hidden_source(folder)
    listing = list_source(folder)
    search = find_cases(listing, modalities=modalities, names=names or None, trust_grid=trust_grid, some=some_scans)
    if not search.cases:
        named = [found for refusal in search.refused[:1] for found in tasks_named(refusal.case_id)]
        if named and all(found.regions != task.regions for found in named):
            _refuse_other_regions(task, named[0], folder)  # its scans are others because its task is
        raise InputError(
            f"wanted complete cases below {folder}, found none; the first of {len(search.refused)} refusals: "
            f"{search.refused[0]}"
        )
    to_read = need_values(search.cases, label_map=told.label_map)
    outcomes = spread(lambda: read_label_values, to_read, workers=workers, use_gpu=False) if to_read else ()
    settled = settle_tasks(
        search.cases,
        {outcome.item.case_id: outcome.result for outcome in outcomes},
        told=told.task,
        label_map=told.label_map,
        decides=[task],
    )
    _refuse_other_regions(task, settled.task, folder)
    cases = {case.case_id: case for case in settled.cases}
    return Cohort(
        uri=folder,
        task=task,
        conventions=_each_once(case.convention or task.convention for case in settled.cases),
        sources={case_id: _describe_files(case) for case_id, case in cases.items()},
        source=FolderInput(cases=cases, modalities=tuple(modalities), task=task),
        refused=(*search.refused, *settled.refused),
        notices=(*search.notices, *settled.notices),
    )


def _open_store(place: str, task: Task, modalities: Sequence[str]) -> Cohort:
    store = open_store(place)
    _refuse_other_regions(task, store.task, store.uri)  # before its scans: no other store of that task will do
    if store.settings.modalities != tuple(modalities):
        raise InputError(
            f"wanted the network's scans {', '.join(modalities)}, in that order, {store.uri} has "
            f"{', '.join(store.settings.modalities)}: give the NIfTI folder, or a store that convert.py --modalities "
            "made of those; for an older checkpoint, which does not say, name what it was trained on with --modalities"
        )
    if not store.case_ids:
        raise InputError(f"wanted cases to predict in {store.uri}, found none; convert some into it")
    refuse_hidden_folder(store.uri, "store")
    return Cohort(
        uri=store.uri,
        task=task,
        conventions=_each_once(store.convention_of(info) for info in store.infos()),
        sources={info.case_id: {"digest": info.digest} for info in store.infos()},
        source=StoreInput(uri=store.uri),
    )


def _refuse_other_regions(task: Task, found: Task, place: str) -> None:
    refuse_other_regions("the network", task, found, place, OWN_TASK_ONLY)


def _each_once(conventions: Iterable[LabelConvention]) -> list[LabelConvention]:
    return list({convention.name: convention for convention in conventions}.values())


def _describe_files(case: Case) -> dict[str, Any]:
    described: dict[str, Any] = {role: describe_file(path) for role, path in files_of(case).items()}
    return described | ({"trust_grid": True} if case.trust_grid else {})  # what was refused or not scored may be now
