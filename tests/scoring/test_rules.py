"""Each rule of each year on the smallest case that shows it."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from scoring import RULES_NAMES, RulesName, Scores, score_case, tasks_of
from scoring.components import number_components
from storage.labels.conventions import (
    CYSTIC_COMPONENT,
    EDEMA,
    ENHANCING,
    GROSS_TUMOUR_VOLUME,
    NECROTIC_CORE,
    RESECTION_CAVITY,
)
from storage.labels.tasks import TASKS

GRID = (24, 30, 40)
Labels = NDArray[np.uint8]
Box = tuple[slice, slice, slice]


def paint(*boxes: tuple[Box, int]) -> Labels:
    labels = np.zeros(GRID, dtype=np.uint8)
    for box, label in boxes:
        labels[box] = label
    return labels


def cube(at: int, size: int = 4, label: int = ENHANCING) -> tuple[Box, int]:
    """A cube whose first voxel along W is `at`."""
    return np.s_[8 : 8 + size, 8 : 8 + size, at : at + size], label


def score(predicted: Labels, true: Labels, rules: RulesName, task: str = "gli-2024", **of: tuple[float, ...]) -> Scores:
    """Scores of ET, or of GTV."""
    scores = score_case(
        predicted, true, task=TASKS[task], rules=rules, spacing_mm=of.get("spacing_mm", (1.0, 1.0, 1.0))
    )
    return scores.get("ET") or scores["GTV"]


def test_components_are_numbered_as_a_scan_of_the_memory_meets_them(rng: np.random.Generator) -> None:
    mask = rng.random((9, 10, 11)) < 0.1
    numbers = number_components(mask)
    first = [int(np.flatnonzero(numbers.ravel() == number)[0]) for number in range(1, int(numbers.max()) + 1)]
    assert len(first) > 20
    assert first == sorted(first)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_lesions_whose_dilations_touch_are_one(gap: int, lesions: int) -> None:
    true = paint(cube(4), cube(8 + gap))
    assert score(np.zeros_like(true), true, "2023")["lesions_missed"] == lesions


def test_a_lesion_of_50_mm3_is_not_scored_in_2023_and_its_prediction_is_not_false() -> None:
    small = paint((np.s_[8:10, 8:13, 4:9], ENHANCING))
    assert np.count_nonzero(small) == 50
    got = score(small, small, "2023")
    assert (got["lesions_found"], got["lesions_false"], got["lesion_dice"], got["lesion_hd95"]) == (0, 0, 1.0, 0.0)
    small[10, 8, 4] = ENHANCING
    assert score(small, small, "2023")["lesions_found"] == 1


def test_in_2023_a_stray_voxel_is_a_false_lesion_and_in_2024_it_is_gone() -> None:
    true = paint(cube(4))
    predicted = true.copy()
    predicted[20, 25, 35] = ENHANCING
    of_2023, of_2024 = score(predicted, true, "2023"), score(predicted, true, "2024")
    assert (of_2023["lesions_false"], of_2023["lesion_dice"], of_2023["lesion_hd95"]) == (1, 0.5, 187.0)
    assert (of_2024["lesions_false"], of_2024["lesion_dice"], of_2024["lesion_hd95"]) == (0, 1.0, 0.0)
    assert (of_2024["kept_dice"], of_2024["dice"]) == (1.0, 128 / 129)


def test_a_prediction_beside_a_lesion_is_its_own_up_to_the_dilation() -> None:
    true = paint(cube(4))
    near, far = score(paint(cube(10)), true, "2023"), score(paint(cube(11)), true, "2023")
    assert (near["lesions_found"], near["lesions_false"], near["lesion_dice"], near["lesion_hd95"]) == (1, 0, 0.0, 6.0)
    assert (far["lesions_found"], far["lesions_false"], far["lesion_hd95"]) == (0, 1, 374.0)


def test_predicted_floors_are_voxels_in_2024_but_mm3_in_meningioma() -> None:
    """30 voxels of 2 mm³: more than 50 mm³, fewer than 50 voxels."""
    lesion = paint((np.s_[8:10, 8:11, 4:9], ENHANCING))
    got = score(lesion, lesion, "2024", "ssa", spacing_mm=(2.0, 1.0, 1.0))
    assert (got["lesions_missed"], got["kept_dice"], got["lesion_hd95"]) == (1, 0.0, 374.0)
    lesion[lesion > 0] = GROSS_TUMOUR_VOLUME
    assert score(lesion, lesion, "2024", "men-rt", spacing_mm=(2.0, 1.0, 1.0))["lesions_found"] == 1


def test_false_lesions_of_meningioma_are_counted_but_not_scored_and_a_miss_is_the_diagonal_in_voxels() -> None:
    true = paint(cube(4, label=GROSS_TUMOUR_VOLUME))
    both = paint(cube(4, label=GROSS_TUMOUR_VOLUME), cube(20, label=GROSS_TUMOUR_VOLUME))
    got = score(both, true, "2024", "men-rt")
    assert (got["lesions_false"], got["lesion_dice"], got["lesion_hd95"]) == (1, 1.0, 0.0)
    missed = score(np.zeros_like(true), true, "2024", "men-rt", spacing_mm=(3.0, 1.0, 1.0))
    assert missed["lesion_hd95"] == pytest.approx(math.hypot(*GRID), abs=1e-12)


@pytest.mark.parametrize(("label", "region", "lesions"), [(NECROTIC_CORE, "NETC", 1), (EDEMA, "SNFH", 2)])
def test_core_is_joined_over_10_voxels_and_edema_is_not(label: int, region: str, lesions: int) -> None:
    true = paint(cube(4, label=label), cube(18, label=label))
    scores = score_case(true, true, task=TASKS["gli-2024"], rules="2024", spacing_mm=(1, 1, 1))
    assert scores[region]["lesions_found"] == lesions


@pytest.mark.parametrize(
    ("cores", "lesions"),
    [
        ([], 2),  # too far apart for a dilation of 3
        ([np.s_[8:12, 8:12, 8:20]], 1),  # one core touches both
        ([np.s_[8:12, 8:12, 8:9]], 2),  # a single pair joins nothing
        ([np.s_[8:12, 8:12, 8:9], np.s_[8:12, 8:12, 19:20]], 1),  # two pieces of core, one lesion of core by dilation
    ],
)
def test_lesions_are_joined_through_a_neighbouring_tissue_in_2024(cores: list[Box], lesions: int) -> None:
    true = paint(cube(4), cube(20), *((core, NECROTIC_CORE) for core in cores))
    assert score(true, true, "2024")["lesions_found"] == lesions


def test_a_lesion_that_touches_two_cores_goes_with_the_first_alone() -> None:
    """Enhancing tissue in a row with cores between, 1 A 2 B 3: 2 goes with 1, which is too small alone, not with 3."""
    pieces = {1: ENHANCING, 4: NECROTIC_CORE, 11: ENHANCING, 19: NECROTIC_CORE, 26: ENHANCING, 30: 0}
    starts = list(pieces)
    row = [(np.s_[8:12, 8:12, at:to], pieces[at]) for at, to in pairwise(starts)]
    assert score(paint(*row), paint(*row), "2024", "ssa")["lesions_found"] == 2


@pytest.mark.parametrize(("task", "lesions"), [("gli-2024", 1), ("met-2024", 2)])
def test_only_adult_glioma_is_joined_through_cavities(task: str, lesions: int) -> None:
    true = paint(cube(4), (np.s_[8:12, 8:12, 8:20], RESECTION_CAVITY), cube(20))
    assert score(true, true, "2025", task)["lesions_found"] == lesions


def test_equal_maps_have_a_little_less_than_1_in_2025() -> None:
    true = paint(cube(4))
    got = score(true, true, "2025")
    assert got["lesion_surface_dice_0.5"] == pytest.approx(0.999999995, abs=1e-15)
    shifted = score(paint(cube(5)), true, "2025")
    assert shifted["surface_dice_0.5"] < 0.7
    assert shifted["surface_dice_1.0"] > 0.99


@pytest.mark.parametrize(("rules", "penalty"), [("2024", 374.0), ("2025", math.hypot(*GRID))])
def test_penalties_of_metastases(rules: RulesName, penalty: float) -> None:
    true = paint(cube(4))
    assert score(np.zeros_like(true), true, rules, "met-2024")["lesion_hd95"] == pytest.approx(penalty, abs=1e-12)


def test_2026_matches_one_to_one_for_the_largest_sum_of_dice() -> None:
    """The best pair, of 0.55, would leave the other two without a match; two others have 0.5 and 0.29."""
    true = paint((np.s_[8:12, 8:12, 4:10], ENHANCING), (np.s_[8:12, 8:12, 11:13], ENHANCING))
    predicted = paint((np.s_[8:12, 8:12, 7:12], ENHANCING), (np.s_[8:12, 8:12, 4:6], ENHANCING))
    got = score(predicted, true, "2026")
    assert (got["lesions_found"], got["lesions_missed"], got["lesions_false"]) == (2, 0, 0)


def test_in_2026_misses_lower_the_mean_of_metastases_alone() -> None:
    true, predicted = paint(cube(4), cube(20)), paint(cube(4), cube(12))
    others, mets = score(predicted, true, "2026"), score(predicted, true, "2026", "met-2024")
    assert (others["lesion_dice"], others["lesion_hd95"]) == (1.0, 0.0)
    assert mets["lesion_dice"] == pytest.approx(1 / 3)
    assert mets["lesion_hd95"] == pytest.approx(2 * 373 / 3)
    assert (mets["matched_lesion_dice"], mets["large_lesions_missed"], mets["large_lesions_false"]) == (1.0, 1, 1)
    assert math.isnan(mets["small_lesions_found"])


@pytest.mark.parametrize(("voxels", "large"), [(19, False), (20, True)])
def test_a_metastasis_is_large_from_20_mm3_on(voxels: int, large: bool) -> None:  # noqa: FBT001
    lesion = np.zeros(GRID, dtype=np.uint8)
    lesion[8, 8, :voxels] = ENHANCING
    got = score(lesion, lesion, "2026", "met-2024")
    assert got["large_lesions_found" if large else "small_lesions_found"] == 1


def test_in_2026_a_metastasis_matched_with_a_dice_below_a_tenth_counts_as_missed_but_its_dice_stays() -> None:
    true, predicted = paint(cube(4, 6)), paint((np.s_[8:9, 8:9, 4:14], ENHANCING))
    got = score(predicted, true, "2026", "met-2024")
    assert (got["lesions_found"], got["large_lesions_found"], got["large_lesions_missed"]) == (1, 0, 1)
    assert got["lesion_dice"] == pytest.approx(12 / 226)


def test_2026_measures_masks_in_voxels_and_lesions_with_sides_swapped() -> None:
    true, predicted = paint(cube(4)), paint((np.s_[10:14, 8:12, 4:8], ENHANCING))
    got = score(predicted, true, "2026", spacing_mm=(5.0, 1.0, 1.0))
    assert (got["hd95_voxels"], got["lesion_hd95"]) == (2.0, 2.0)  # along D, where 10 mm are meant
    assert score(predicted, true, "plain", spacing_mm=(5.0, 1.0, 1.0))["hd95"] == 10.0


def test_an_empty_region_is_what_each_year_makes_of_it() -> None:
    empty, lesion = paint(), paint(cube(4))
    assert score(empty, empty, "2023")["hd95"] == 0.0
    assert (score(lesion, empty, "2023")["hd95"], score(lesion, empty, "2024")["hd95"]) == (374.0, 337.0)
    assert math.isnan(score(empty, empty, "2026")["dice"])
    one = score(lesion, empty, "2026")
    assert (one["dice"], one["hd95_voxels"], one["lesion_hd95"]) == (0.0, 373.0, math.inf)
    both = score(empty, empty, "plain")
    assert (both["dice"], both["hd95"], both["lesion_dice"], both["sensitivity"], both["precision"]) == (1, 0, 1, 1, 1)
    missed, false = score(empty, lesion, "plain"), score(lesion, empty, "plain")
    assert (missed["dice"], missed["sensitivity"], missed["precision"]) == (0, 0, 0)
    assert (false["dice"], false["sensitivity"], false["precision"], false["lesion_dice"]) == (0, 0, 0, 0)
    assert math.isnan(missed["hd95"])
    assert math.isnan(false["lesion_hd95"])


@pytest.mark.parametrize("rules", RULES_NAMES)
def test_scores_do_not_hang_on_where_the_lesions_lie(rules: RulesName, rng: np.random.Generator) -> None:
    """Mirrored, and with empty slices around: the same but for specificity and penalties, which know the grid."""
    true, predicted = (
        (ndimage.gaussian_filter(rng.standard_normal(GRID), 1.5) > 0.12).astype(np.uint8) * ENHANCING for _ in range(2)
    )
    task = "gli-2023" if rules == "2023" else "ped-2024"
    grown: Callable[[Labels], Labels] = lambda labels: np.pad(labels, ((3, 0), (0, 7), (1, 1)))  # noqa: E731
    plain, mirrored, moved = (
        score(change(predicted), change(true), rules, task)
        for change in (lambda labels: labels, lambda labels: labels[::-1, :, ::-1], grown)
    )
    assert plain["lesions_found"] > 0
    del plain["specificity"]
    for name, value in plain.items():
        assert mirrored[name] == pytest.approx(value, abs=1e-9), name
        assert moved[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("rules", RULES_NAMES)
def test_every_task_that_rules_name_is_scored(rules: RulesName) -> None:
    for task in tasks_of(rules):
        scores = score_case(paint(), paint(), task=TASKS[task], rules=rules, spacing_mm=(1, 1, 1))
        assert len(scores) >= 1


def test_what_cannot_be_scored_is_said() -> None:
    true = paint(cube(4))
    with pytest.raises(ValueError, match=r"rules of 2023 have no task men-rt; they have gli-2021"):
        score(true, true, "2023", "men-rt")
    with pytest.raises(ValueError, match=r"wanted maps of one shape, got \(23, 30, 40\) predicted"):
        score(true[1:], true, "plain")
    with pytest.raises(ValueError, match=r"wanted labels of ssa alone.*got cystic_component in the prediction"):
        score(paint(cube(4, label=CYSTIC_COMPONENT)), true, "2026", "ssa")


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 3, 1), (3, 3, 3), (1, 5, 5)])
def test_a_lattice_of_single_voxels_is_numbered(shape: tuple[int, int, int]) -> None:
    """cc3d 4.1.1 gives up on one that fills its box."""
    lattice = np.all(np.indices(shape) % 2 == 0, axis=0)
    assert number_components(lattice).max() == np.count_nonzero(lattice)
