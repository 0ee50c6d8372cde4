"""What a network was trained on, as its checkpoint says it: the scans and the task. Beside its configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

from ray_jobs.checkpoints.checkpoint import Checkpoint
from ray_jobs.checkpoints.run_folder import CONFIG
from storage import CohortStore, InputError, Task
from storage.labels.conventions import LabelConvention, convention_named
from storage.labels.tasks import find_task, task_of_old_store
from storage.store.plausibility import Spacing, typical_spacing

OWN_TASK_ONLY = "a network predicts its own task only; give one that was trained on this"


def describe_task(store: CohortStore) -> dict[str, Any]:
    """Return what a checkpoint says of the store it was trained on, as JSON."""
    settings = store.settings
    return encode_task(store.task, settings.modalities, settings.convention, typical_spacing(store.infos()))


def encode_task(
    task: Task, modalities: Sequence[str], convention: LabelConvention, spacing: Sequence[float] | None
) -> dict[str, Any]:
    """Return what a checkpoint says of its training's scans, as JSON; spacing: their usual voxel, z y x in mm."""
    return {
        "modalities": list(modalities),
        "regions": list(task.region_names),
        "task": {
            "name": task.name,
            "region_labels": task.region_labels,
            "label_convention": convention.name,
            "skull_stripped": task.skull_stripped,
        },
        "spacing": spacing,
    }


def read_task(checkpoint: Checkpoint) -> Task:
    """Return the task of a checkpoint; one made before they were written down has no name and the glioma's regions.

    Raises InputError where it is none that this version understands.
    """
    return decode_task(checkpoint.read_json(CONFIG), checkpoint.uri)


def read_spacing(checkpoint: Checkpoint) -> Spacing | None:
    """Return the usual voxel of the training's cases, z y x in mm; None where an older version wrote none down."""
    spacing: list[float] | None = checkpoint.read_json(CONFIG).get("spacing")
    return None if spacing is None else (spacing[0], spacing[1], spacing[2])


def read_origin(checkpoint: Checkpoint) -> str | None:
    """Return what a network was brought from, which bring.py wrote down; None where it was trained here."""
    origin: str | None = checkpoint.read_json(CONFIG).get("brought_from")
    return origin


def decode_task(values: Mapping[str, Any], where: str) -> Task:
    """The inverse of `describe_task`; raises InputError."""
    described = values.get("task")
    if described is None:
        old = task_of_old_store(convention_named("brats-124"))
        if values.get("regions") != list(old.region_names):
            raise InputError(f"wanted the regions {list(old.region_names)} in {where}, found {values.get('regions')}")
        return old
    try:
        convention = convention_named(described["label_convention"])
    except ValueError as error:
        raise InputError(f"{where} was made by another version: {error}") from None
    if not described["name"]:
        return task_of_old_store(convention)
    return find_task(
        described["name"],
        convention=convention,
        regions={name: described["region_labels"][name] for name in values["regions"]},
        scans=tuple(values["modalities"]),
        skull_stripped=described["skull_stripped"],
    )


def refuse_other_task(checkpoint: Checkpoint, task: Task, place: str, remedy: str) -> None:
    """Raise InputError where the regions of `task`, which is that of `place`, are not those of the network."""
    refuse_other_regions(checkpoint.uri, read_task(checkpoint), task, place, remedy)


def refuse_other_regions(network: str, own: Task, task: Task, place: str, remedy: str) -> None:
    """Raise InputError where the regions of `task`, which is that of `place`, are not those of `network`'s own task."""
    if own.regions != task.regions:
        raise InputError(f"{network} was trained on {_describe(own)}, {place} is {_describe(task)}: {remedy}")


def _describe(task: Task) -> str:
    """A task in a sentence: its name and regions."""
    return f"{task.name or 'an unnamed task'} ({', '.join(task.region_names)})"
