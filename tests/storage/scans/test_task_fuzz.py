"""Thousands of cohorts of every BraTS task and naming: each ends as the task that it is, or as a refusal.

The truth is the table in brats_family.py, which was written from what the organisers say, and not the product's.
"""

import random
from collections import Counter
from collections.abc import Iterator

import pytest

from storage import TASKS, InputError, find_cases
from storage.labels.conventions import STORED_LABEL_NAMES, LabelConvention
from storage.scans.task_detection import SettledCohort, settle_tasks
from tests.storage.scans.brats_family import ROW_OF, TABLE, Row
from tests.storage.scans.drawn_cohorts import Cohort, Group, Store, draw_cohort, listed


def settle(cohort: Cohort) -> SettledCohort:
    """As a conversion does it; raises InputError where the cohort, or one of its cases, is refused."""
    found = find_cases(listed(cohort.files))
    values = cohort.values
    lost = values.keys() - {case.case_id for case in found.cases}
    if found.refused or lost:
        raise InputError(f"not all were found: {found.refused or lost}")
    for case in found.cases:
        assert str(case.label).endswith(cohort.labels.get(case.case_id, "None")), f"{case}, of {cohort}"
    store = cohort.store
    return settle_tasks(
        found.cases,
        {case_id: own for case_id, own in values.items() if own is not None},
        told=TASKS[cohort.told] if cohort.told is not None else None,
        joins=store.task if store is not None else None,
        joins_values=store.convention if store is not None else None,
        decides=[TASKS[name] for name in store.tasks] if store is not None else [],
    )


def store_with(cohort: Cohort, settled: SettledCohort) -> Store:
    """The store once the cohort is in it. Cases without a voxel of a label say nothing of later ones."""
    before = cohort.store or Store(task=settled.task, convention=settled.convention, tasks=(settled.task.name,))
    labelled = (case.task for case in settled.cases if cohort.values[case.case_id])
    tasks = tuple(dict.fromkeys([*before.tasks, *labelled]))
    return Store(task=before.task, convention=before.convention, tasks=tasks)


def allowed_rows(group: Group, cohort: Cohort) -> list[Row]:
    """As which rows the group's cases may be stored: the one that the table leaves, or what was said of several."""
    rows = group.readings()
    if cohort.told is not None:
        told = ROW_OF[cohort.told]
        if not group.by_id:  # the user knows more than the endings
            return group.readings([told])
        return [told] if any(told.means_the_same(row) for row in rows) else []
    if all(rows[0].means_the_same(row) for row in rows):
        return rows
    if cohort.store is None:
        return []
    # Without a voxel of a label nothing is misread. Else the store must have labels of the very task.
    return [row for row in rows if row.task in cohort.store.tasks or not any(group.values.values())]


def meanings_of(convention: LabelConvention) -> dict[int, str]:
    return {value: STORED_LABEL_NAMES[stored] for value, stored in convention.stored_by_source.items() if value}


def find_faults(cohort: Cohort, settled: SettledCohort) -> Iterator[str]:
    """What of the outcome contradicts the table."""
    kept = ROW_OF[settled.task.name]
    regions = {region.name: {STORED_LABEL_NAMES[each] for each in region.labels} for region in settled.task.regions}
    if regions != kept.regions:
        yield f"the regions of {kept.task} are {regions}"
    cases = {case.case_id: case for case in settled.cases}
    for group in cohort.groups:
        rows = allowed_rows(group, cohort)
        for case_id in group.values.keys() & cases.keys():
            case, own = cases[case_id], set(group.values[case_id] or ())
            means = meanings_of(case.convention) if case.convention is not None else {}
            if case_id == group.odd and not own <= means.keys():
                continue  # reading it will refuse it by name
            if not any(case.task == row.task and means == row.values for row in rows):
                yield f"{case_id} is taken as {case.task}, which may be {[row.task for row in rows]}"
            elif not {means[value] for value in own} <= set().union(*kept.regions.values()):
                yield f"{case_id} has tissues that no region of {kept.task} has"


def fuzz(seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Settle so many cohorts: how often each end came, and what was wrong."""
    draw = random.Random(seed)
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    store: Store | None = None
    for _ in range(count):
        cohort = draw_cohort(draw, store)
        clear = cohort.has_one_reading()
        ends["one reading"] += clear
        try:
            settled = settle(cohort)
        except InputError:
            ends["refused"] += 1
            ends["one reading, refused"] += clear
            continue
        faults = list(find_faults(cohort, settled))
        if faults:
            wrong.append(f"{settled.task.name}: {'; '.join(faults)}: {cohort}")
            continue
        ends["right"] += 1
        ends["right without a flag"] += cohort.told is None and cohort.store is None
        ends["right in a store"] += cohort.store is not None
        ends.update({f"right {case.task}" for case in settled.cases})
        store = store_with(cohort, settled)
    return ends, wrong


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_each_cohort_ends_as_its_task_or_as_a_refusal(count: int) -> None:
    ends, wrong = fuzz(seed=17, count=count)
    assert not wrong, "\n".join([f"{len(wrong)} wrong of {count}", *wrong[:5]])
    assert ends["one reading, refused"] <= 0.01 * ends["one reading"], ends
    assert ends["one reading"] > count / 4 and ends["right in a store"] > count / 50, ends
    assert all(ends[f"right {row.task}"] for row in TABLE), ends
