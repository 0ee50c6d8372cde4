"""What is odd about a cohort is said in a line, and nothing is said of a sound one."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest

from storage import TASKS, CaseInfo, CohortStore
from storage.labels.conventions import MODALITIES
from storage.store.plausibility import (
    case_notices,
    cohort_notices,
    part_notices,
    registration_notices,
    typical_spacing,
)


def with_voxels(small_store: CohortStore, *cases: Mapping[str, int]) -> list[CaseInfo]:
    return [dataclasses.replace(small_store.infos()[0], region_voxels=voxels) for voxels in cases]


def test_nothing_is_said_of_a_sound_cohort(small_store: CohortStore) -> None:
    infos = with_voxels(small_store, {"WT": 90, "TC": 40, "ET": 0}, {"WT": 90, "TC": 40, "ET": 10})
    assert cohort_notices(infos, TASKS["gli-2021"]) == []
    assert cohort_notices([], TASKS["gli-2021"]) == []


def test_masks_of_the_whole_tumour_are_noticed(small_store: CohortStore) -> None:
    infos = with_voxels(small_store, *[{"WT": 90, "TC": 90, "ET": 0}] * 3)
    only, never = cohort_notices(infos, TASKS["gli-2023"])
    assert only.startswith("necrotic or non enhancing core is the only label in the whole cohort (3 labelled cases)")
    assert "--label-map" in only
    assert never.startswith("ET never occurs in the whole cohort") and "1.000" in never


@pytest.mark.parametrize(
    ("task", "voxels", "never"),
    [
        ("ped-2024", {"WT": 9, "TC": 7, "ET": 0, "NET": 7, "CC": 0, "ED": 2}, "ET, CC never occur"),
        ("gli-2024", {"WT": 9, "TC": 7, "ET": 3, "NETC": 4, "SNFH": 2, "RC": 0}, "RC never occurs"),
        ("men-rt", {"GTV": 0}, "GTV never occurs"),
    ],
)
def test_labels_that_never_occur_are_named(
    small_store: CohortStore, task: str, voxels: dict[str, int], never: str
) -> None:
    (notice,) = cohort_notices(with_voxels(small_store, voxels), TASKS[task])
    assert notice.startswith(f"{never} in the whole cohort (1 labelled case)")


def test_a_part_without_a_region_that_the_cohort_has_is_named(small_store: CohortStore) -> None:
    some, none = {"WT": 9, "TC": 7, "ET": 3}, {"WT": 9, "TC": 7, "ET": 0}
    infos = [
        dataclasses.replace(info, case_id=name)
        for name, info in zip("ab", with_voxels(small_store, some, none), strict=True)
    ]
    (notice,) = part_notices(infos, TASKS["gli-2021"], "validation", ["b"])
    assert notice.startswith("ET never occurs in the validation cases") and "1.000" in notice
    assert notice.endswith("unless --thresholds says another")  # thresholds are found on these cases and no others
    assert not part_notices(infos, TASKS["gli-2021"], "test", ["b"])[0].endswith("another")
    assert part_notices(infos, TASKS["gli-2021"], "validation", ["a", "b"]) == []
    assert part_notices(infos, TASKS["gli-2021"], "test", []) == []
    assert part_notices(infos[1:], TASKS["gli-2021"], "validation", ["b"]) == []  # the cohort's notice says it


def test_a_volume_without_background_is_noticed_where_there_should_be_some(small_store: CohortStore) -> None:
    sound = with_voxels(small_store, {"WT": 90, "TC": 40, "ET": 10})[0]
    depth, height, width = sound.original_shape
    full = dataclasses.replace(sound, brain_voxels=depth * height * width)
    (notice,) = cohort_notices([sound, full], TASKS["gli-2021"])
    assert notice.startswith(f"{sound.case_id}: no voxel is background")
    assert cohort_notices([dataclasses.replace(full, labelled=False)], TASKS["men-rt"]) == []
    assert len(case_notices(full, TASKS["gli-2021"], None)) == 1 and case_notices(full, TASKS["men-rt"], None) == []


def test_spacing_far_from_the_others_or_from_the_networks_is_noticed(small_store: CohortStore) -> None:
    usual = [dataclasses.replace(info, spacing=(1.0, 1.0, 1.0)) for info in small_store.infos()[:3]]
    thick = dataclasses.replace(usual[0], case_id="thick", spacing=(6.0, 0.5, 0.5))
    assert typical_spacing([*usual, thick]) == (1.0, 1.0, 1.0) and typical_spacing([]) is None
    (notice,) = cohort_notices([*usual, thick], TASKS["gli-2021"])
    assert notice.startswith("thick: voxels of 6 x 0.5 x 0.5 mm, most of the cohort's are of 1 x 1 x 1 mm")
    assert case_notices(usual[0], TASKS["gli-2021"], (1.2, 1.0, 1.0)) == []
    (notice,) = case_notices(thick, TASKS["gli-2021"], (1.0, 1.0, 1.0))
    assert "the network was trained on 1 x 1 x 1 mm" in notice


def test_a_head_with_its_skull_is_noticed_by_its_size(small_store: CohortStore) -> None:
    sound = with_voxels(small_store, {"WT": 90, "TC": 40, "ET": 10})[0]
    head = dataclasses.replace(sound, original_shape=(200, 200, 200), spacing=(1.0, 1.0, 1.0), brain_voxels=2_600_000)
    (notice,) = case_notices(head, TASKS["gli-2021"], None)
    assert notice.startswith("more than 2.5 litres are not 0") and "not skull-stripped" in notice
    assert cohort_notices([sound, head], TASKS["gli-2021"]) == [f"{head.case_id}: {notice}"]
    assert case_notices(dataclasses.replace(head, brain_voxels=1_800_000), TASKS["gli-2021"], None) == []
    assert case_notices(head, TASKS["men-rt"], None) == []


def test_a_scan_that_lies_elsewhere_is_noticed() -> None:
    head = np.zeros((80, 80, 80), np.int16)
    head[20:60, 20:60, 20:60] = 7
    image = np.stack([head, head, np.roll(head, 4, axis=1), np.zeros_like(head)])  # the last one is missing
    (notice,) = registration_notices(image, MODALITIES, TASKS["gli-2021"])
    assert notice.startswith(f"the brain of {MODALITIES[2]} is not where the other scans' is (Dice 0.90 at best)")
    assert registration_notices(image[:2], MODALITIES[:2], TASKS["gli-2021"]) == []
    assert registration_notices(image[:1], MODALITIES[:1], TASKS["gli-2021"]) == []
    assert registration_notices(image, MODALITIES, TASKS["men-rt"]) == []
