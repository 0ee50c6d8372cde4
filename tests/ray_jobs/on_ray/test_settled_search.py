"""What a store says of cases that are to join it: what its labels are of, and nothing that was only fitted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.on_ray.settled_search import settle_search
from storage import TASKS, InputError
from storage.scans.case import Case, CaseSearch, Naming
from storage.store.cohort_conversion import plan_conversion

PED = "BraTS-PED-00001-000"


def search_of(*case_ids: str) -> CaseSearch:
    cases = [
        Case(case_id=each, subject=each, files={"t1": Path("t1n.nii")}, label=Path("seg.nii"), naming=Naming.HYPHEN)
        for each in case_ids
    ]
    return CaseSearch(cases=tuple(cases), refused=())


def store_of(task: str, **committed: tuple[str, dict[str, int]]) -> Any:
    """A store of `task` with cases, each of a task and with so many voxels of its regions."""
    infos = {
        name.replace("_", "-"): SimpleNamespace(
            task=own, region_voxels=voxels, label_convention=TASKS[own].convention.name, sources={}, subject=name
        )
        for name, (own, voxels) in committed.items()
    }
    settings = SimpleNamespace(convention=TASKS[task].convention)
    return SimpleNamespace(uri="s.zarr", task=TASKS[task], settings=settings, committed_cases=lambda: infos)


def test_only_labels_of_the_same_source_say_what_others_of_it_mean() -> None:
    def settle(store: Any, *case_ids: str) -> str:
        search, committed = search_of(*case_ids), store.committed_cases()
        new = plan_conversion(search.cases, committed).todo
        search = settle_search(search, store, committed, new, None, None, lambda cases: [(1, 2)] * len(cases)).search
        return next(case.task for case in search.cases if case.case_id == PED)

    labelled = {"WT": 9, "TC": 5, "ET": 0}
    for task, year in (("gli-2023", "ped-2023"), ("ped-2024", "ped-2024"), ("ped-2023", "ped-2023")):
        store = store_of(task, BraTS_PED_00002_000=(year, labelled))
        assert settle(store, PED, "BraTS-PED-00002-000") == year  # one folder, and part of it is stored
        with pytest.raises(InputError, match="2 ways"):  # another folder, which may be of the other year
            settle(store, PED)
    for unlabelled in ({}, {"WT": 0, "TC": 0, "ET": 0}):
        with pytest.raises(InputError, match="2 ways"):
            settle(store_of("ped-2023", BraTS_PED_00002_000=("ped-2023", unlabelled)), PED, "BraTS-PED-00002-000")


def test_that_what_is_stored_settled_two_readings_is_said() -> None:
    store = store_of("ped-2023", BraTS_PED_00002_000=("ped-2023", {"WT": 9, "TC": 5, "ET": 0}))
    search, committed = search_of(PED, "BraTS-PED-00002-000"), store.committed_cases()
    new = [case for case in search.cases if case.case_id == PED]
    settled = settle_search(search, store, committed, new, None, None, lambda cases: [(1, 2)] * len(cases))
    (notice,) = settled.search.notices
    assert notice.startswith(f"{PED}: labels read as ped-2023, may be ped-2024")
