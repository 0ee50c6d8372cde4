"""What the labels mean, as the command line tells it."""

from collections.abc import Mapping

from storage import TASKS, InputError, Task
from storage.labels.conventions import STORED_LABEL_NAMES, LabelConvention, custom_convention
from storage.labels.tasks import SHORT_NAMES, labels_of


def told_task(name: str | None, *, flag: str = "--task") -> Task | None:
    """Return the task called `name`, given as `flag`; None where none is. Raises InputError for an unknown one."""
    if name is None:
        return None
    full = SHORT_NAMES.get(name.lower(), name.lower())
    if full not in TASKS:
        short = ", ".join(f"{each} for {task}" for each, task in SHORT_NAMES.items())
        raise InputError(f"wanted {flag} {', '.join(TASKS)} ({short}), got {name}")
    return TASKS[full]


def told_values(label_map: Mapping[int, int]) -> LabelConvention | None:
    """Return what --label-map says; None where it is not given. Raises InputError for values that cannot be."""
    if not label_map:
        return None
    try:
        return custom_convention(label_map)
    except ValueError as error:
        raise InputError(f"--label-map: {error}") from None


def refuse_incomplete(convention: LabelConvention, task: Task) -> None:
    """Raise InputError for a convention in which not every segmentation of `task` can be written."""
    missing = labels_of(task.regions) - convention.labels
    if missing:
        names = ", ".join(f"{STORED_LABEL_NAMES[label]} ({label})" for label in sorted(missing))
        raise InputError(
            f"segmentations are to be written as {convention.name}, which has no value for {names}: "
            "give one in --label-map, or another --write-task"
        )
