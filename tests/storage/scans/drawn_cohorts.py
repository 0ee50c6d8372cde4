"""Cohorts drawn from the table of the BraTS family, in names and layouts that were seen; nothing lies on disk."""

import json
import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, cast

from storage.labels.conventions import LabelConvention
from storage.labels.tasks import Task
from storage.scans.listing import Folder, Listing, ScanFile
from tests.storage.scans.brats_family import MEN_RT, NEW, OLD, RENAMED, TABLE, Row

Values = tuple[int, ...] | None

WITH_FILE_NAMES = ("{grade}/{id}/{file}", "{id}_nifti/{file}", "a/{id}/b/{file}")
BY_FOLDER = ("{id}/{end}{suffix}", "{id}/{id}{between}{end}.nii/00000057_brain.nii", "{end}/{id}{suffix}")
DECATHLON = json.dumps(
    {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
    }
).encode()


class File(PurePosixPath):
    """A file of a listing; only a dataset.json is ever read."""

    def read_bytes(self) -> bytes:
        assert self.name == "dataset.json"
        return DECATHLON

    def stat(self) -> Any:
        raise OSError


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cases whose names allow the same rows, by their ids or (not `by_id`) by their files' endings alone.

    `values` are those of their segmentations, None without one, and `labels` where these lie. `odd` is one whose values
    are of another row.
    """

    rows: list[Row]
    by_id: bool
    values: dict[str, Values]
    labels: dict[str, str]
    odd: str | None = None

    def readings(self, rows: Sequence[Row] | None = None) -> list[Row]:
        """Those of its rows that have all values; where an odd file has others, those that have all else."""

        def fitting(case_ids: Collection[str]) -> list[Row]:
            found = {value for case_id in case_ids for value in self.values[case_id] or ()}
            return [row for row in rows or self.rows if found <= set(row.values)]

        return fitting(self.values) or fitting(self.values.keys() - {self.odd})


@dataclass(frozen=True, kw_only=True)
class Store:
    """What an earlier cohort was stored as, and the tasks that its labels are of."""

    task: Task
    convention: LabelConvention
    tasks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """What lies below one folder, what the user says of it, and the store that it is to join."""

    groups: list[Group]
    files: list[str]
    told: str | None = None
    store: Store | None = None

    def __str__(self) -> str:
        said = [f"{'|'.join(row.task for row in group.rows)}: {group.values}" for group in self.groups]
        joins = f", joins {self.store.task.name} of {self.store.tasks}" if self.store else ""
        return f"{'; '.join(said)}, told {self.told}{joins}, files such as {self.files[:5]}"

    @property
    def values(self) -> dict[str, Values]:
        return {case_id: values for group in self.groups for case_id, values in group.values.items()}

    @property
    def labels(self) -> dict[str, str]:
        return {case_id: path for group in self.groups for case_id, path in group.labels.items()}

    def has_one_reading(self) -> bool:
        """Whether the table leaves one, in which all can be kept, and nothing else is said or odd."""
        readings = [group.readings() for group in self.groups]
        if self.told or self.store or any(group.odd for group in self.groups):
            return False
        if not all(rows and all(rows[0].means_the_same(row) for row in rows) for rows in readings):
            return False
        tissues = {tissue for row, *_ in readings for tissue in row.values.values()}
        return any(tissues <= set(row.values.values()) for row, *_ in readings)


def draw_cohort(draw: random.Random, store: Store | None) -> Cohort:
    """The cases of one task, or of two or three below one folder; sometimes a flag, a store to join, an odd file."""
    groups: dict[Any, Group] = {}
    files: list[str] = []
    odd = draw.random() < 0.05
    for _ in range(draw.choices((1, 2, 3), (80, 16, 4))[0]):
        ids, group, names = _draw_group(draw, odd=odd and not groups)
        if ids not in groups:
            groups[ids] = group
            files += names
    top = draw.choice(("", "BraTS/", "data/unpacked/training set/"))
    first = next(iter(groups.values()))
    told = draw.choice([draw.choice(TABLE).task, draw.choice(first.rows).task, None, None, None, None])
    return Cohort(
        groups=list(groups.values()),
        files=[top + name for name in files],
        told=told,
        store=store if draw.random() < 0.15 else None,
    )


def _draw_group(draw: random.Random, *, odd: bool) -> tuple[Any, Group, list[str]]:
    """Cases of one row, or of nobody's ids, with what tells them from those of other rows, and their files."""
    row = draw.choice(TABLE)
    patterns, exams = row.ids, row.exams
    rows, by_id = [each for each in TABLE if (each.ids, each.exams) == (patterns, exams)], True
    endings = draw.choice(row.endings) if row.endings else OLD
    if draw.random() < 0.1:
        patterns, endings, rows = draw.choice(RENAMED)
        row, exams, by_id = draw.choice(rows), (0, 99), False
    elif row.endings in ((OLD,), (NEW,)) and draw.random() < 0.05:
        endings = OLD if endings is NEW else NEW  # its id says what it is all the same
    ids = _draw_ids(draw, patterns, exams, draw.randint(10, 14) if odd else draw.randint(1, draw.choice((2, 12))))
    # Values may have been rewritten as another row's, which names do not say. Of a cavity in exams with a number from
    # before treatment the table says nothing.
    others = [each for each in TABLE if row.task != "gli-2023" or 4 not in each.values]
    values = _draw_values(draw, draw.choice(others) if draw.random() < 0.1 else row, ids)
    strange = sorted({1, 2, 3, 4} - set(row.values)) if odd else []
    if strange:
        usual = tuple(row.values)
        values = dict.fromkeys(ids, usual) | {ids[0]: (*usual[:-1], draw.choice(strange))}
    labels, names = _draw_files(draw, endings, values, decathlon=by_id and not row.endings)
    group = Group(rows=rows, by_id=by_id, values=values, odd=ids[0] if strange else None, labels=labels)
    return (patterns, exams), group, names


def _draw_ids(draw: random.Random, patterns: Sequence[str], exams: tuple[int, int], count: int) -> list[str]:
    """Numbers of 3 to 8 digits, in the letter case of the table, in small or in capital letters."""
    digits, exam_digits = draw.choice((3, 4, 5, 5, 5, 6, 8)), draw.choice((3, 3, 3, 4))
    spelled: Callable[[str], str] = draw.choice((str, str, str, str, str.lower, str.upper))
    usual = draw.choice(patterns)
    ids: set[str] = set()
    while len(ids) < count:
        pattern = draw.choice(patterns) if draw.random() < 0.3 else usual
        number, exam = draw.randrange(10**digits), draw.randint(*exams)
        ids.add(spelled(pattern.replace("#", f"{number:0{digits}d}").replace("%", f"{exam:0{exam_digits}d}")))
    return sorted(ids)


def _draw_values(draw: random.Random, row: Row, ids: Sequence[str]) -> dict[str, Values]:
    """Any subset in each case, of any subset of the row's: what a cohort never has, none of its cases has."""
    every = list(row.values)
    of_all = every if draw.random() < 0.6 else draw.sample(every, draw.randint(0, len(every)))
    labelled, each = draw.choice((1.0, 1.0, 1.0, 0.5, 0.0)), draw.choice((0.9, 0.5))
    return {
        case_id: tuple(sorted(value for value in of_all if draw.random() < each)) if draw.random() < labelled else None
        for case_id in ids
    }


def _draw_files(
    draw: random.Random, endings: Mapping[str, str], values: Mapping[str, Values], *, decathlon: bool
) -> tuple[dict[str, str], list[str]]:
    """Where each case's segmentation lies, and all files, in a layout that was seen."""
    suffix = draw.choice((".nii.gz", ".nii.gz", ".nii"))
    if decathlon:
        return _draw_decathlon(draw, values, suffix)
    between = "_"
    if endings in (OLD, NEW, MEN_RT):
        between = "-" if (endings is NEW) != (draw.random() < 0.2) else "_"
    spelled: Callable[[str], str] = draw.choice((str, str, str, str, str.upper))
    layout = draw.choice((*("{id}/{file}", "{id}/{file}", "{file}"), *WITH_FILE_NAMES))
    label_layout = draw.choice((layout, layout, "images_segm/{file}"))
    if endings in (OLD, NEW) and draw.random() < 0.3:
        layout = label_layout = draw.choice(BY_FOLDER)
    labels: dict[str, str] = {}
    names: list[str] = []
    for case_id, own in values.items():
        grade = draw.choice(("HGG", "LGG"))
        for role, ending in endings.items():
            if role != "label" or own is not None:
                end = spelled(ending)
                file = f"{case_id}{between}{end}{suffix}"
                place = label_layout if role == "label" else layout
                names.append(place.format(id=case_id, file=file, grade=grade, end=end, between=between, suffix=suffix))
            if role == "label" and own is not None:
                labels[case_id] = names[-1]
    return labels, names


def _draw_decathlon(draw: random.Random, values: Mapping[str, Values], suffix: str) -> tuple[dict[str, str], list[str]]:
    """As downloaded; of images that are called exactly so, without the dataset.json, too."""
    task = "Task01_BrainTumour"
    labels = {case_id: f"{task}/labelsTr/{case_id}{suffix}" for case_id, own in values.items() if own is not None}
    images = [f"{task}/images{'Tr' if case_id in labels else 'Ts'}/{case_id}{suffix}" for case_id in values]
    bare = all(re.fullmatch(r"BRATS_\d{3}", case_id) for case_id in values) and draw.random() < 0.5
    return labels, [*images, *labels.values(), *([] if bare else [f"{task}/dataset.json"])]


def listed(files: Sequence[str]) -> Listing:
    """The files as a source lists them."""
    top = Folder(path=PurePosixPath(), files={}, folders={})
    known = {top.path: top}

    def folder_at(path: PurePosixPath) -> Folder:
        if path not in known:
            known[path] = Folder(path=path, files={}, folders={})
            cast(dict[str, Folder], folder_at(path.parent).folders)[path.name] = known[path]
        return known[path]

    for name in sorted(files):
        file = File(name)
        cast(dict[str, ScanFile], folder_at(file.parent).files)[file.name] = file
    return Listing(top=top)
