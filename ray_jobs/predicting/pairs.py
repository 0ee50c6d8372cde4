"""Which segmentations are compared with which labels, and what the values of both mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray_jobs.predicting.folder import describe_file
from ray_jobs.predicting.predict_config import is_store
from ray_jobs.predicting.score_config import ScoreConfig
from ray_jobs.settings.label_choice import told_task
from storage import TASKS, CohortStore, InputError, Refusal, Task, list_source, open_store
from storage.archives.kinds import SourceKind, find_kind
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import tasks_named
from storage.scans.listing import ScanFile
from storage.scans.segmentations import Segmentations, Side, find_segmentations, pair_by_name


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Predictions and their labels by case, with what tells whether one has changed; small enough to be sent about.

    `inexact` names the predictions that are not called just like their case. `labels` are files, or empty where the
    labels lie in `store`. `convention` is what the predictions' values mean, and the label files'; None where each
    case of the store says it.
    """

    task: Task
    convention: LabelConvention | None
    predictions: Mapping[str, ScanFile]
    inexact: Mapping[str, str]
    labels: Mapping[str, ScanFile]
    store: str | None
    sources: Mapping[str, Mapping[str, Any]]
    refused: Sequence[Refusal]


def find_pairs(config: ScoreConfig) -> Pairs:
    """Find predictions and labels and match them by name.

    Raises InputError where there is nothing to compare, and where the task cannot be told.
    """
    predictions, unlisted = _list(config.prediction, "prediction")
    if is_store(config.label):
        of_store = _with_store(config, predictions, open_store(config.label))
        return replace(of_store, refused=(*unlisted, *of_store.refused))
    labels, more = _list(config.label, "label")
    twice = [
        Refusal(
            case_id=name,
            file="",
            finding=f"{len(files)} labels have its name: {files[0]}, {files[1]}",
            remedy="name the folder that holds one of them",
        )
        for name, files in labels.files.items()
        if len(files) > 1
    ]
    ambiguous = {refusal.case_id for refusal in twice}
    matched = pair_by_name(predictions, labels.files)
    task = told_task(config.task) or _task_of_names(list(matched.pairs) or list(labels.files))
    found = {
        name: (prediction, labels.files[name][0]) for name, prediction in matched.pairs.items() if name not in ambiguous
    }
    return Pairs(
        task=task,
        convention=task.convention,
        predictions={name: prediction for name, (prediction, _) in found.items()},
        inexact=matched.inexact,
        labels={name: label for name, (_, label) in found.items()},
        store=None,
        sources={
            name: {"prediction": describe_file(prediction), "label": describe_file(label)}
            for name, (prediction, label) in found.items()
        },
        refused=(*unlisted, *more, *twice, *(each for each in matched.refused if each.case_id not in ambiguous)),
    )


def _with_store(config: ScoreConfig, predictions: Segmentations, store: CohortStore) -> Pairs:
    told = told_task(config.task)
    if told is not None and told.region_labels != store.task.region_labels:
        raise InputError(
            f"wanted --task {store.task.name or 'of the store'}, which {store.uri} was made for, got {told.name}; "
            "leave it out"
        )
    found = pair_by_name(predictions, [info.case_id for info in store.infos() if info.labelled])
    return Pairs(
        task=told or store.task,
        convention=None if told is None else told.convention,
        predictions=found.pairs,
        inexact=found.inexact,
        labels={},
        store=store.uri,
        sources={
            name: {"prediction": describe_file(prediction), "label": store.info(name).digest}
            for name, prediction in found.pairs.items()
        },
        refused=found.refused,
    )


def _list(place: str, side: Side) -> tuple[Segmentations, Sequence[Refusal]]:
    """The segmentations there, and what could not be listed."""
    wanted = f"--{side} with a folder, a .zip or a .tar of segmentations"
    if find_kind(place, wanted=wanted) is SourceKind.STREAM:
        raise InputError(f"wanted {wanted}, found a compressed tar: {place}; decompress it to a .tar")
    listing = list_source(place)
    found = find_segmentations(listing, side)
    if not found.files:
        raise InputError(
            f"wanted {wanted}, found none in {place}: call them X_seg.nii.gz, X/seg.nii.gz or X.nii.gz after their "
            "cases; names that end like a scan's (_t1, -t2f, …) do not count"
        )
    return found, listing.refused


def _task_of_names(names: Sequence[str]) -> Task:
    """The task that every case's name may be of; raises InputError where there is none, or several."""
    fitting = [{task.name for task in tasks_named(name)} for name in names]
    common = set.intersection(*fitting)
    if len(common) == 1:
        return TASKS[common.pop()]
    unnamed = next((name for name, fits in zip(names, fitting, strict=True) if not fits), None)
    if unnamed is not None:
        finding = f"the name {unnamed} is no task's"
    elif common:
        finding = f"the cases' names leave {', '.join(sorted(common))}"
    else:
        finding = f"no task has all their names ({names[0]} …)"
    raise InputError(f"wanted --task, to know what the values mean and which regions are scored: {finding}")
