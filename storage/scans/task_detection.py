"""Which task each case of a cohort belongs to, from its name and the labels of all; refused where two readings fit.

The table of tasks says which names a task has and which values; cases whose names allow the same tasks are looked at
together, and a task stays if their values are all among its own. One that stays is it. Of two (PED and MET of 2023 and
of 2024, where no value tells) none is guessed: the user's --task decides, or what is stored of the same source.
A --task whose values are not those found is refused for all cases: those that by chance have no other value would be
read with the wrong meaning. Rewritten values, which no name explains, are a store's only where it was told of them.

Names that no task has are told by their endings: `_t1ce` is of 2018 to 2021; `-t1c` may be any later task. The
Decathlon's names say it for its 4-D files alone: with a file for each scan they leave both readings.

One odd file does not stop a cohort: where nothing fits, a task stays of which nine cases have the highest value for
each case that has a value of another task, and none has both; the odd ones are then refused by name when they are read.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from storage.errors import Refusal, UnknownLabelsError
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import (
    GLI_2021_TASK,
    GLI_2023_TASK,
    GLI_2024_TASK,
    MEN_RT_TASK,
    MSD_TASK,
    TASKS,
    Task,
    custom_task,
    tasks_named,
)
from storage.scans.case import Case, Naming
from storage.scans.naming import nifti_stem
from storage.scans.nifti import read_segmentation
from storage.scans.nifti_header import NiftiError
from storage.scans.task_refusals import (
    describe_settled,
    name_contradicts,
    nothing_said,
    readings_left,
    tasks_apart,
    told_apart,
    told_otherwise_before,
    values_contradict,
)

# So many cases with the usual value for each with the odd one: the odd ones are at most a tenth of both.
_USUAL_FOR_EACH_ODD = 9


@dataclass(frozen=True, kw_only=True)
class SettledCohort:
    """The task that holds all cases, the cases with what their own values mean, and those whose name contradicts."""

    task: Task
    convention: LabelConvention
    cases: tuple[Case, ...]
    refused: tuple[Refusal, ...] = ()
    notices: tuple[str, ...] = ()
    """A line for labelled cases with two readings, of which `decides` settled one."""


def read_label_values(case: Case) -> tuple[int, ...] | None:
    """The distinct non-zero values of a case's segmentation; None when there is none or it cannot be read.

    Unreadable files are no evidence here: the conversion refuses their case and says why.
    """
    if case.label is None:
        return None
    try:
        labels = read_segmentation(case.label).array
    except NiftiError:
        return None
    counts = np.bincount(labels.ravel(order="K"), minlength=1)
    return tuple(int(value) for value in np.flatnonzero(counts) if value != 0)


def need_values(cases: Sequence[Case], *, label_map: LabelConvention | None) -> list[Case]:
    """The cases whose labels must be looked at for `settle_tasks`: all with one, unless their meaning is told."""
    if label_map is not None:
        return []
    return [case for case in cases if case.label is not None and case.convention is None]


def settle_tasks(
    cases: Sequence[Case],
    values_by_case: Mapping[str, Sequence[int] | None],
    *,
    told: Task | None = None,
    label_map: LabelConvention | None = None,
    joins: Task | None = None,
    joins_values: LabelConvention | None = None,
    decides: Sequence[Task] = (),
) -> SettledCohort:
    """Give each case its task and the meaning of its values.

    `told` is the user's --task and `label_map` what they say of values. `joins` is the task of the store that the cases
    are to join and `joins_values` what it was told of values; `decides` are the tasks of its cases (of a network: its
    own), which settle what else has two readings.
    Raises UnknownLabelsError where two readings stay, and where no one task holds all cases.
    """
    groups: dict[tuple[str, ...], list[Case]] = defaultdict(list)
    for case in cases:
        stated = case.convention.name if case.convention is not None else ""
        groups[stated, *(task.name for task in _readings(case))].append(case)
    settled: list[Case] = []
    refused: list[Refusal] = []
    tasks: Counter[str] = Counter()
    by_name: dict[str, Task] = {}
    notices: list[str] = []
    for group in groups.values():
        readings = _readings(group[0])
        if told is not None and readings and not any(_same_meaning(told, task) for task in readings):
            if label_map is None and not _by_endings(group[0]):
                refused += [name_contradicts(case, told, readings) for case in group]
                continue
            readings = (told,)
        values = {case.case_id: tuple(values_by_case.get(case.case_id) or ()) for case in group}
        before = (joins, joins_values) if joins is not None and joins_values is not None else None
        task, convention = _settle_group(readings, group, values, told, label_map, decides, before)
        if told is None and label_map is None and group[0].convention is None and task in decides:
            others = [other for other in _fitting(readings, values) if not _same_meaning(task, other)]
            notices += describe_settled(task, others, values)
        settled += [
            replace(case, task=task.name, convention=label_map or case.convention or convention) for case in group
        ]
        tasks[task.name] += len(group)
        by_name[task.name] = task
    if not settled:
        raise UnknownLabelsError(f"no case can be of --task {told.name if told else ''}: {refused[0]}", "name another")
    holder = joins or _holder([by_name[name] for name, _ in tasks.most_common()], told)
    for name, task in by_name.items():
        if holder is None or not holder.holds(task):
            raise tasks_apart(joins, tasks, name)
    assert holder is not None
    order = {case.case_id: index for index, case in enumerate(cases)}
    return SettledCohort(
        task=holder,
        convention=label_map or holder.convention,
        cases=tuple(sorted(settled, key=lambda case: order[case.case_id])),
        refused=tuple(refused),
        notices=tuple(notices),
    )


def _readings(case: Case) -> tuple[Task, ...]:
    """The tasks that the case's name allows, else the endings of its files; none where neither says anything.

    A segmentation that is called a GTV may be one, whatever the case is called.
    """
    found = _readings_by_names(case)
    gtv = case.label is not None and nifti_stem(case.label.name).lower().endswith("gtv")
    return (*found, MEN_RT_TASK) if gtv and found and MEN_RT_TASK not in found else found


def _readings_by_names(case: Case) -> tuple[Task, ...]:
    if case.naming is Naming.MSD:
        return (MSD_TASK,)
    if case.naming is Naming.NNUNET and case.convention is None and case.label is not None:
        return ()  # whatever its name: who writes this format counts the labels anew
    named = tasks_named(case.case_id)
    if not _by_endings(case):
        return named
    if case.naming is Naming.UNDERSCORE:
        return (*named, GLI_2021_TASK)
    if case.naming is Naming.HYPHEN:
        later = (task for task in TASKS.values() if any("BraTS-" in pattern for pattern in task.ids))
        return (*named, *(task for task in later if case.files.keys() <= set(task.scans)))
    return ()


def _by_endings(case: Case) -> bool:
    """Whether the case's own name does not say its task.

    The Decathlon's BRATS_001 is one 4-D file; with a file for each scan it is cut from that, or another's renamed.
    """
    return case.naming is not Naming.MSD and tasks_named(case.case_id) in ((), (MSD_TASK,))


def _settle_group(
    readings: tuple[Task, ...],
    group: Sequence[Case],
    values: Mapping[str, Sequence[int]],
    told: Task | None,
    label_map: LabelConvention | None,
    decides: Sequence[Task],
    before: tuple[Task, LabelConvention] | None,
) -> tuple[Task, LabelConvention]:
    """The task of cases whose names allow the same ones, and what their values mean."""
    mapped = label_map or group[0].convention
    if mapped is not None:
        meant = mapped.labels
        fits = [task for task in readings if meant <= task.labels]
        if told is not None and not meant <= told.labels:
            raise told_apart(told, mapped, "--label-map" if label_map is not None else "dataset.json")
        if told is not None:
            return told, mapped
        try:
            return (fits[0] if len(fits) == 1 else custom_task(mapped)), mapped
        except ValueError as error:
            raise UnknownLabelsError(f"--label-map: {error}", "name labels that one task has together") from None
    if not readings and told is None:
        return _without_a_name(group[0], values, decides, before)
    if told is not None:
        if told not in _fitting(readings if told in readings else (*readings, told), values):
            raise values_contradict(told, _fitting(readings, values), values)
        return told, told.convention
    fits = _fitting(readings, values)
    for task in decides:
        if len(fits) > 1 and task in fits:
            return task, task.convention
    if fits and all(_same_meaning(fits[0], task) for task in fits):
        if before is not None and _speaks_against(before, fits[0], values):
            raise told_otherwise_before(fits[0], before[1], values)
        return fits[0], fits[0].convention
    if before is not None and before[0] in fits and not _is_users_word(before) and _read_alike(fits, values):
        return before[0], before[0].convention
    if not fits and before is not None and _is_users_word(before) and _fitting([_as_told(before)], values):
        return before
    raise readings_left(fits or list(readings), values, fit=bool(fits))


def _without_a_name(
    case: Case,
    values: Mapping[str, Sequence[int]],
    decides: Sequence[Task],
    before: tuple[Task, LabelConvention] | None,
) -> tuple[Task, LabelConvention]:
    """The task of cases like this one, of which neither name nor files say anything: the store's, where values fit.

    Who writes nnU-Net's format counts the labels anew: then a store says what they mean only where it was told so.
    """
    counted_anew = case.naming is Naming.NNUNET and any(values.values())
    if before is not None and _fitting([_as_told(before)], values) and (not counted_anew or _is_users_word(before)):
        return before
    own = next(iter(decides), None)
    if own is None or any(values.values()):
        raise nothing_said(case, values)
    return own, own.convention


def _is_users_word(before: tuple[Task, LabelConvention]) -> bool:
    """Whether a store's values were told, and are not just those of its task."""
    task, values = before
    return values != task.convention


def _speaks_against(before: tuple[Task, LabelConvention], task: Task, values: Mapping[str, Sequence[int]]) -> bool:
    """Whether the store was told that a value which occurs means something else under names of its own task."""
    held, told = before[0], before[1].stored_by_source
    own = task.convention.stored_by_source
    used = set().union(*values.values())
    return (
        _is_users_word(before) and held.name == task.name and any(told.get(v, own.get(v)) != own.get(v) for v in used)
    )


def _as_told(before: tuple[Task, LabelConvention]) -> Task:
    task, values = before
    return replace(task, convention=values)


def _fitting(readings: Sequence[Task], values: Mapping[str, Sequence[int]]) -> list[Task]:
    """The tasks among whose values all lie, or, where there is none, all but those of a few odd cases."""
    known = {value for task in TASKS.values() for value in task.convention.stored_by_source}
    found = {case_id: set(own) & known for case_id, own in values.items()}  # of what no task has nothing can be told
    fits = [task for task in readings if all(_is_among(own, task) for own in found.values())]
    if not fits and tuple(readings) == (GLI_2023_TASK,) and any({3, 4} <= own for own in found.values()):
        return [GLI_2024_TASK]  # exams after treatment begin at number 100; a cavity beside enhancing says the same
    return fits or [task for task in readings if _all_but_few(task, found)]


def _is_among(values: set[int], task: Task) -> bool:
    return values <= set(task.convention.stored_by_source)


def _all_but_few(task: Task, found: Mapping[str, set[int]]) -> bool:
    highest = max(task.convention.stored_by_source)
    odd = [case_id for case_id, own in found.items() if not _is_among(own, task)]
    usual = [case_id for case_id, own in found.items() if highest in own]
    return not set(odd) & set(usual) and len(odd) * _USUAL_FOR_EACH_ODD <= len(usual)


def _same_meaning(one: Task, other: Task) -> bool:
    return one.convention == other.convention and one.regions == other.regions


def _read_alike(tasks: Sequence[Task], values: Mapping[str, Sequence[int]]) -> bool:
    """Whether each value that occurs means the same in all of the tasks, as in MET of both years where no 4 is."""
    found = set().union(*values.values())
    return all(len({task.convention.stored_by_source.get(value) for task in tasks}) == 1 for value in found)


def _holder(tasks: Sequence[Task], told: Task | None) -> Task | None:
    """The task in which all of `tasks` can be kept, the commonest one where several could."""
    choices = [*([told] if told is not None else []), *tasks]
    return next((task for task in choices if all(task.holds(other) for other in tasks)), None)
