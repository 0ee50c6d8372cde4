"""Regions of the values of each task."""

import numpy as np
import pytest

from storage.labels.regions import region_masks
from storage.labels.tasks import TASKS

GLIOMA = {"WT": [1, 1, 1], "TC": [1, 0, 1], "ET": [0, 0, 1]}
POST_TREATMENT = {
    "WT": [1, 1, 1, 0], "TC": [1, 0, 1, 0], "ET": [0, 0, 1, 0], "NETC": [1, 0, 0, 0], "SNFH": [0, 1, 0, 0],
    "RC": [0, 0, 0, 1],
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "source", "masks"),
    [
        ("gli-2021", [1, 2, 4], GLIOMA),
        ("gli-2023", [1, 2, 3], GLIOMA),
        ("gli-2024", [1, 2, 3, 4], POST_TREATMENT),
        ("met-2024", [1, 2, 3, 4], POST_TREATMENT),
        ("msd", [2, 1, 3], GLIOMA),
        (
            "ped-2024",
            [1, 2, 3, 4],
            {
                "WT": [1, 1, 1, 1],
                "TC": [1, 1, 1, 0],
                "ET": [1, 0, 0, 0],
                "NET": [0, 1, 0, 0],
                "CC": [0, 0, 1, 0],
                "ED": [0, 0, 0, 1],
            },
        ),
        ("men-rt", [1], {"GTV": [1]}),
    ],
)
def test_regions_of_each_tasks_values(task: str, source: list[int], masks: dict[str, list[int]]) -> None:
    chosen = TASKS[task]
    stored = chosen.convention.to_stored(np.array([[source]], dtype=np.uint8))
    regions_RDHW = region_masks(stored, chosen.regions)
    assert dict(zip(chosen.region_names, regions_RDHW[:, 0, 0].tolist(), strict=True)) == masks


def test_only_what_means_the_same_may_lie_in_one_store() -> None:
    held = {name: {other.name for other in TASKS.values() if task.holds(other)} for name, task in TASKS.items()}
    glioma = {name for name, task in TASKS.items() if task.region_names == ("WT", "TC", "ET")}
    assert held["gli-2021"] == held["ped-2023"] == glioma
    assert held["gli-2024"] == held["met-2024"] == glioma | {"gli-2024", "met-2024"}
    assert held["ped-2024"] == {"ped-2024"}
    assert held["men-rt"] == {"men-rt"}
