"""Cohorts of the BraTS family that once went wrong, from files to a store: labels mean what they meant in the source.

What the source meant is said by the table in brats_family.py, which is not the product's. Each kind is tried for every
task that can have it; the generators of such cohorts beside the project are run too, where they are there.
"""

import re
import runpy
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ray_jobs.on_ray.settled_search import make_store, settle_search
from storage import TASKS, CohortStore, InputError, convert_case, find_cases, open_store, split_cohort
from storage.labels.conventions import STORED_LABEL_NAMES
from storage.scans.task_detection import read_label_values, settle_tasks
from storage.store.cohort_conversion import plan_conversion
from tests.storage.scans.brats_family import NEW, OLD, ROW_OF, TABLE, Row
from tests.storage.scans.drawn_cohorts import listed

GENERATORS = Path(__file__).parents[4] / "shared" / "data" / "family"
SHAPE = (10, 9, 8)
TWO_READINGS = ("met-2023", "met-2024", "ped-2023", "ped-2024")

by_row = pytest.mark.parametrize("row", [row for row in TABLE if row.endings], ids=lambda row: row.task)


def write(folder: Path, case_id: str, endings: Mapping[str, str], values: Iterable[int] | None) -> None:
    """A case with a slab of 9 voxels for each value of its segmentation, in the order of the values."""
    random = np.random.default_rng(1)
    brain = np.zeros(SHAPE, dtype=np.int16)
    brain[1:9, 1:8, 1:7] = 1
    (folder / case_id).mkdir(parents=True, exist_ok=True)
    for role, ending in endings.items():
        if role != "label" or values is not None:
            array = random.integers(1, 900, SHAPE).astype(np.int16) * brain
            if role == "label":
                array = np.zeros(SHAPE, dtype=np.int16)
                for index, value in enumerate(sorted(values or ())):
                    array[2 + index, 2:5, 2:5] = value
            between = "-" if endings is NEW else "_"
            name = folder / case_id / f"{case_id}{between}{ending}.nii"
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0])), name)


def ids_of(row: Row, number: int = 1) -> list[str]:
    """Two exams of one person."""
    pattern = next((each for each in row.ids if "%" in each), row.ids[0])
    first, later = (pattern.replace("%", str(row.exams[0] + exam).zfill(3)) for exam in (0, 1))
    if first == later:
        later = row.ids[1] if len(row.ids) == 2 else pattern.replace("_1", "_2")
    return [each.replace("#", f"{number:05d}") for each in (first, later)]


def convert(source: Path, store_uri: Path, *, told: str | None = None) -> CohortStore:
    """As the command does it, without Ray."""
    search = find_cases(source)
    assert search.refused == ()
    existing = open_store(store_uri) if store_uri.exists() else None
    committed = existing.committed_cases() if existing is not None else {}
    settled = settle_search(
        search,
        existing,
        committed,
        plan_conversion(search.cases, committed).todo,
        TASKS[told] if told else None,
        None,
        lambda cases: [read_label_values(each) for each in cases],
    )
    if settled.search.refused:
        raise InputError(str(settled.search.refused[0]))
    store = existing or make_store(settled, str(store_uri), None)
    for case in settled.search.cases:
        if case.case_id not in store.case_ids:
            convert_case(case, store)
    store.rebuild_index()
    return open_store(store_uri)


def tissues_in(store: CohortStore, case_id: str) -> dict[str, int]:
    """The voxels of each stored label but the background."""
    label = store.read_case(case_id).label_DHW
    return {STORED_LABEL_NAMES[each]: int((label == each).sum()) for each in np.unique(label) if each}


@by_row
def test_what_is_stored_means_what_the_source_meant_and_goes_back(row: Row, tmp_path: Path) -> None:
    case_id = ids_of(row)[0]
    write(tmp_path / "in", case_id, row.endings[0], row.values)
    store = convert(tmp_path / "in", tmp_path / "s.zarr", told=row.task if row.task in TWO_READINGS else None)
    info, label = store.info(case_id), store.read_case(case_id).label_DHW
    assert (store.task.name, info.task, store.settings.modalities) == (row.task, row.task, store.task.scans)
    assert tissues_in(store, case_id) == dict.fromkeys(row.values.values(), 9)
    assert label is not None
    source = store.convention_of(info).to_source(label)
    for stored in set(np.unique(label).tolist()) - {0}:
        (value,) = np.unique(source[label == stored]).tolist()
        assert row.values[value] == STORED_LABEL_NAMES[stored]
    voxels = {region: 9 * len(tissues) for region, tissues in row.regions.items()}
    assert dict(info.region_voxels) == voxels


@pytest.mark.parametrize(
    ("kind", "values", "alone"),
    [("PED", (1, 2), None), ("PED", (1, 2, 3), None), ("PED", (1, 4), "ped-2024"), ("MET", (1, 3), None)],
)
def test_years_of_one_name_are_told_apart_or_asked_and_never_beside_another_meaning(
    kind: str, values: tuple[int, ...], alone: str | None, tmp_path: Path
) -> None:
    name = f"BraTS-{kind}-00001-000"
    write(tmp_path / "in", name, NEW, values)
    write(tmp_path / "glioma", "BraTS-GLI-00001-000", NEW, (1, 2, 3))
    convert(tmp_path / "glioma", tmp_path / "gliomas.zarr")
    if alone is None:
        for store in ("new.zarr", "gliomas.zarr"):
            both = rf"2 ways: .*--task {kind.lower()}-2023 or {kind.lower()}-2024"
            with pytest.raises(InputError, match=both):
                convert(tmp_path / "in", tmp_path / store)
    else:
        assert convert(tmp_path / "in", tmp_path / "new.zarr").task.name == alone
    for year in (2023, 2024):
        row = ROW_OF[f"{kind.lower()}-{year}"]
        if not set(values) <= set(row.values):
            with pytest.raises(InputError, match=rf"--task says {row.task} .*, found the values"):
                convert(tmp_path / "in", tmp_path / "gliomas.zarr", told=row.task)
            continue
        means = dict.fromkeys((row.values[value] for value in values), 9)
        store = tmp_path / f"{year}.zarr"
        assert tissues_in(convert(tmp_path / "in", store, told=row.task), name) == means
        more, second = tmp_path / f"more {year}", f"BraTS-{kind}-00002-000"
        write(more, second, NEW, values)
        if (
            kind == "PED" and alone is None
        ):  # of another source, which may be of the other year, and its labels mean something else then
            with pytest.raises(InputError, match="2 ways"):
                convert(more, store)
        shutil.copytree(tmp_path / "in", more, dirs_exist_ok=True)  # of the same source, whose labels are known
        assert tissues_in(convert(more, store), second) == means
    if kind == "PED":
        with pytest.raises(InputError, match=r"of the store's task .gli-2023.*found ped-2024"):
            convert(tmp_path / "in", tmp_path / "gliomas.zarr", told="ped-2024")


@by_row
def test_cases_without_labels_have_the_values_of_their_names_from_a_folder_and_through_a_store(
    row: Row, tmp_path: Path
) -> None:
    case_id = ids_of(row)[0]
    write(tmp_path / "in", case_id, row.endings[0], None)
    (case,) = find_cases(tmp_path / "in").cases
    # The network may be of another year: then its values are not those of the names.
    networks = [task for task in TASKS.values() if task.regions == TASKS[row.task].regions]
    if row.task in TWO_READINGS:
        networks = [TASKS[row.task]]
        with pytest.raises(InputError, match="2 ways"):
            settle_tasks([case], {})
    told = row.task if row.task in TWO_READINGS else None
    store = convert(tmp_path / "in", tmp_path / "s.zarr", told=told)
    stored = store.convention_of(store.info(case_id))
    assert {value: STORED_LABEL_NAMES[each] for value, each in stored.stored_by_source.items() if value} == row.values
    for network in networks:
        assert settle_tasks([case], {}, decides=[network]).cases[0].convention == stored


@by_row
def test_exams_of_one_person_are_of_one_subject(row: Row) -> None:
    case_ids = [case_id for number in (1, 2) for case_id in ids_of(row, number)]
    ends = [f"{end}.nii.gz" for end in row.endings[0].values()]
    found = find_cases(listed([f"{case_id}/{case_id}_{end}" for case_id in case_ids for end in ends]))
    subject = {case.case_id: case.subject for case in found.cases}
    assert found.notices == () and len(subject) == 4
    assert [subject[case_id] == subject[case_ids[0]] for case_id in case_ids] == [True, True, False, False]


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old"), (".",)])
def test_years_join_below_one_folder_and_in_each_others_store(order: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "in" / "old", "BraTS2021_00001", OLD, (1, 2, 4))
    write(tmp_path / "in" / "new", "BraTS-GLI-00001-000", NEW, (1, 2, 3))
    for folder in order:
        store = convert(tmp_path / "in" / folder, tmp_path / "s.zarr")
    old, new = (store.read_case(case_id).label_DHW for case_id in ("BraTS2021_00001", "BraTS-GLI-00001-000"))
    np.testing.assert_array_equal(old, new)
    assert [store.info(case_id).task for case_id in store.case_ids] == ["gli-2023", "gli-2021"]
    assert [sorted(store.convention_of(info).stored_by_source) for info in store.infos()] == [
        [0, 1, 2, 3],
        [0, 1, 2, 4],
    ]


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run a generator beside the project into a new folder."""
    if not GENERATORS.is_dir():
        pytest.skip(f"the generators are not at {GENERATORS}")

    def run(script: str, *arguments: str) -> Path:
        out = tmp_path / "generated"
        monkeypatch.setattr(sys, "argv", [script, str(out), *arguments])
        runpy.run_path(str(GENERATORS / f"{script}.py"), run_name="__main__")
        return out

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "variant", "task"),
    [
        ("g00_healthy", "4", "gli-2021"),
        ("g01_ped2024", "plain", None),
        ("g01_ped2024", "cyst", None),
        ("g01_ped2024", "oedema", "ped-2024"),
        ("g01_ped2024", "both", "ped-2024"),
        ("g02_menrt", "", "men-rt"),
        ("g04_kaggle", "", "gli-2023"),
        ("g05_upenn", "", "upenn-gbm"),
        ("g11_validation", "2021", "gli-2021"),
        ("g11_validation", "2023", "gli-2023"),
        ("g11_validation", "ped", None),
        ("g12_mapping", "latin1", "gli-2021"),
        ("g14_ucsf_followups", "", "ucsf-pdgm"),
        ("g16_orientation", "", "gli-2021"),
    ],
)
def test_generated_cohorts(
    script: str, variant: str, task: str | None, generate: Callable[..., Path], tmp_path: Path
) -> None:
    source = generate(script, *filter(None, [variant]))
    if task is None:
        with pytest.raises(InputError, match=r"2 ways.*--task ped-2023 or ped-2024"):
            convert(source, tmp_path / "s.zarr")
        assert not (tmp_path / "s.zarr").exists()
        return
    store = convert(source, tmp_path / "s.zarr")
    row = ROW_OF[task]
    assert store.task.name == task
    for info in store.infos():
        assert info.labelled is not script.startswith("g11")
        assert set(tissues_in(store, info.case_id)) <= set(row.values.values())
        assert not info.labelled or all(info.region_voxels[region] for region in ("WT", "ET") if region in row.regions)
    if script.startswith("g11"):
        return
    splits = split_cohort(store)
    parts: dict[str, set[str]] = defaultdict(set)
    for part in ("train", "validation", "test"):
        for case_id in getattr(splits, part):
            parts[re.sub(r"(_FU\d+d|_\d1|-\d)$", "", case_id)].add(part)  # exams in UCSF's, UPENN's and MEN-RT's names
    assert all(len(of_person) == 1 for of_person in parts.values())
