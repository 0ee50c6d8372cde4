"""What is said where a task cannot be told, or is told wrongly: what was wanted, what came, and which flag helps."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from storage.errors import Refusal, UnknownLabelsError
from storage.labels.conventions import STORED_LABEL_NAMES, LabelConvention
from storage.labels.tasks import TASKS, Task
from storage.scans.case import Case

MAP_FLAG = "--label-map (source value, stored label, …: 1 1 2 2 4 3)"


def nothing_said(case: Case, values: Mapping[str, Sequence[int]]) -> UnknownLabelsError:
    return UnknownLabelsError(
        f"wanted to know what the labels of {case.case_id} mean, its name and files do not say it; "
        f"values: {describe_found(values)}",
        f"say which with --task ({', '.join(TASKS)}) or {MAP_FLAG}",
    )


def tasks_apart(joins: Task | None, tasks: Mapping[str, int], name: str) -> UnknownLabelsError:
    if joins is not None:
        kept = f"{joins.name or 'of an older version'}, with regions {', '.join(joins.region_names)}"
        return UnknownLabelsError(
            f"wanted cases of the store's task ({kept}), found {name}, whose labels mean something else",
            "name another store for them",
        )
    listed = ", ".join(f"{task} ({count} {'case' if count == 1 else 'cases'})" for task, count in tasks.items())
    return UnknownLabelsError(
        f"wanted cases of one task, or of tasks whose labels mean the same, found {listed}",
        "convert each into a store of its own, with its folder as --source",
    )


def told_apart(told: Task, mapped: LabelConvention, said_by: str) -> UnknownLabelsError:
    """The user's task has not the labels that the values are told to mean."""
    return UnknownLabelsError(
        f"--task says {told.name} ({describe_values(told.convention)}), {said_by} says {describe_values(mapped)}",
        "leave out --task, or say what the values mean with --label-map and labels of that task",
    )


def name_contradicts(case: Case, told: Task, readings: Sequence[Task]) -> Refusal:
    """Where the user's task holds the labels of the name's, nothing need be said."""
    named = " or ".join(task.name for task in readings)
    way_out = "leave out --task" if all(told.holds(task) for task in readings) else "convert it apart"
    return Refusal(
        case_id=case.case_id,
        file=str(case.label or next(iter(case.files.values()), "")),
        finding=f"its name says {named}, --task says {told.name}",
        remedy=f"{way_out}; if its values were rewritten, say what they mean with {MAP_FLAG}",
    )


def values_contradict(told: Task, fits: Sequence[Task], values: Mapping[str, Sequence[int]]) -> UnknownLabelsError:
    """`fits` are the tasks that the values allow."""
    others = " or ".join(task.name for task in fits if task != told)
    other = f"another task with --task ({others}), or " if others else ""
    return UnknownLabelsError(
        f"--task says {told.name} ({describe_values(told.convention)}), found the values {describe_found(values)}",
        f"name {other}what the values mean with {MAP_FLAG}",
    )


def told_otherwise_before(
    task: Task, before: LabelConvention, values: Mapping[str, Sequence[int]]
) -> UnknownLabelsError:
    """The cases' names say one meaning, and the store was made with the user's word for another."""
    return UnknownLabelsError(
        f"cases such as {next(iter(values))} are {task.name} by their names ({describe_values(task.convention)}), and "
        f"the store was told {describe_values(before)}; values: {describe_found(values)}",
        f"say which with --task {task.name}, or with the --label-map of the store",
    )


def readings_left(tasks: Sequence[Task], values: Mapping[str, Sequence[int]], *, fit: bool) -> UnknownLabelsError:
    """Of the names' tasks, those that `fit` the values if more than one does, else all of them."""
    seen = describe_found(values)
    example = next(iter(values))
    described = " or ".join(f"{task.name} ({describe_values(task.convention)})" for task in tasks)
    if fit:
        finding = f"cases such as {example} can be read in {len(tasks)} ways: {described}; values: {seen}"
        return UnknownLabelsError(finding, f"say which with --task {' or '.join(task.name for task in tasks)}")
    return UnknownLabelsError(
        f"cannot tell what the labels mean: by their names the cases are {described}, with values {seen}",
        f"say what the values mean with {MAP_FLAG}, or which task it is with --task",
    )


def describe_settled(task: Task, others: Sequence[Task], values: Mapping[str, Sequence[int]]) -> list[str]:
    """Labelled cases were read as of `task`, and might be of `others`; nothing where there is neither."""
    labelled = [case_id for case_id, own in values.items() if own]
    if not labelled or not others:
        return []
    count = f"{len(labelled)} cases such as {labelled[0]}" if len(labelled) > 1 else labelled[0]
    names = " or ".join(other.name for other in others)
    return [f"{count}: labels read as {task.name}, may be {names} by names and values; --task says which"]


def describe_found(values: Mapping[str, Sequence[int]]) -> str:
    """Each value with how many cases have it and one of them."""
    by_value: dict[int, list[str]] = defaultdict(list)
    for case_id, own in sorted(values.items()):
        for value in own:
            by_value[value].append(case_id)
    return (
        "; ".join(
            f"{value} in {len(case_ids)} {'case' if len(case_ids) == 1 else 'cases'}, such as {case_ids[0]}"
            for value, case_ids in sorted(by_value.items())
        )
        or "none"
    )


def describe_values(convention: LabelConvention) -> str:
    """What each value means, as a user reads it: `1 edema, 2 enhancing`."""
    meant = {value: STORED_LABEL_NAMES[stored] for value, stored in convention.stored_by_source.items() if stored}
    return ", ".join(f"{value} {name.replace('_', ' ')}" for value, name in sorted(meant.items()))
