"""What a store says of cases that are to join it: what its labels are of, and nothing that was only fitted."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ray_jobs.on_ray.settled_search import settle_search
from storage import TASKS, InputError
from storage.scans.case import Case, CaseSearch, Naming


def search_of(*case_ids: str) -> CaseSearch:
    scans, label = {"t1": Path("t1n.nii")}, Path("seg.nii")
    cases = [Case(case_id=each, subject=each, files=scans, label=label, naming=Naming.HYPHEN) for each in case_ids]
    return CaseSearch(cases=tuple(cases), refused=())


def store_of(task: str, **committed: dict[str, int]) -> Any:
    """A store of `task` with a case of each task named, with so many voxels of its regions."""
    infos = {
        name: SimpleNamespace(task=name.replace("_", "-"), region_voxels=voxels, label_convention="")
        for name, voxels in committed.items()
    }
    settings = SimpleNamespace(convention=TASKS[task].convention)
    return SimpleNamespace(uri="s.zarr", task=TASKS[task], settings=settings, committed_cases=lambda: infos)


def test_only_labels_say_what_later_ones_mean() -> None:
    search = search_of("BraTS-PED-00001-000")
    labelled = {"WT": 9, "TC": 5, "ET": 0}

    def settle(store: Any) -> str:
        return settle_search(search, store, None, None, lambda cases: [(1, 2)] * len(cases)).search.cases[0].task

    assert settle(store_of("gli-2023", gli_2023=labelled, ped_2023=labelled)) == "ped-2023"
    assert settle(store_of("ped-2024", ped_2024={})) == "ped-2024"  # so it was told when it was made
    for unlabelled in ({}, {"WT": 0, "TC": 0, "ET": 0}):
        with pytest.raises(InputError, match="2 ways"):
            settle(store_of("gli-2023", gli_2023=labelled, ped_2023=unlabelled))
