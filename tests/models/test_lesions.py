import numpy as np
import pytest
from numpy.typing import NDArray

from models import score_lesions
from models.distances import WORST_DISTANCE_MM, hausdorff95

Mask = NDArray[np.bool_]
SHAPE = (30, 30, 60)


def _boxes(*corners_and_sides: tuple[tuple[int, int, int], int]) -> Mask:
    mask = np.zeros(SHAPE, dtype=bool)
    for (z, y, x), side in corners_and_sides:
        mask[z : z + side, y : y + side, x : x + side] = True
    return mask


# 5³ = 125 voxels, above the 50 mm³ that count; 3³ = 27 below.
LEFT, RIGHT, SPECK = ((5, 5, 5), 5), ((5, 5, 40), 5), ((20, 20, 50), 3)


def test_every_lesion_counts_alike_whatever_its_size() -> None:
    large = ((5, 5, 30), 15)
    truth, prediction = _boxes(LEFT, large), _boxes(large)
    scores = score_lesions(prediction, truth)
    # The large lesion is perfect, the small one missed: a mean of 1 and 0, where plain Dice is 0.98.
    assert (scores.dice, scores.hd95) == pytest.approx((0.5, WORST_DISTANCE_MM / 2))
    assert (scores.found, scores.missed, scores.spurious) == (1, 1, 0)


def test_spurious_components_count_against_the_prediction_whatever_their_size() -> None:
    scores = score_lesions(_boxes(LEFT, RIGHT, SPECK), _boxes(LEFT))
    assert scores.dice == pytest.approx(1 / 3)
    assert scores.hd95 == pytest.approx(2 * WORST_DISTANCE_MM / 3)
    assert (scores.found, scores.missed, scores.spurious) == (1, 0, 2)


def test_lesions_within_the_dilation_are_one() -> None:
    # Six voxels apart: dilated by three on either side they touch. Seven are too many.
    for gap, lesions in ((6, 1), (7, 2)):
        truth = _boxes(LEFT, ((5, 5, 10 + gap), 5))
        scores = score_lesions(_boxes(LEFT), truth)
        assert scores.found + scores.missed == lesions
        assert scores.dice == pytest.approx(2 * 125 / (125 + 250) if lesions == 1 else 0.5)


def test_a_near_miss_belongs_to_the_lesion_with_no_overlap() -> None:
    # Three voxels beside the lesion, within its dilation: one found lesion with Dice 0, nothing spurious.
    near, truth = _boxes(((5, 5, 12), 5)), _boxes(LEFT)
    scores = score_lesions(near, truth)
    assert (scores.dice, scores.found, scores.spurious) == (0.0, 1, 0)
    assert scores.hd95 == pytest.approx(hausdorff95(near, truth))
    assert score_lesions(_boxes(((5, 5, 13), 5)), truth).spurious == 1


def test_fragments_of_a_prediction_are_taken_together() -> None:
    truth = _boxes(LEFT)
    broken = truth.copy()
    broken[:, :, 7] = False
    scores = score_lesions(broken, truth)
    assert scores.dice == pytest.approx(2 * 100 / 225)
    assert (scores.found, scores.spurious) == (1, 0)


def test_a_component_may_match_two_lesions() -> None:
    bridge = _boxes(LEFT, RIGHT)
    bridge[7, 7, 5:45] = True
    scores = score_lesions(bridge, _boxes(LEFT, RIGHT))
    assert scores.dice == pytest.approx(2 * 125 / (125 + 280))
    assert (scores.found, scores.missed, scores.spurious) == (2, 0, 0)


def test_small_lesions_are_left_out_with_what_touches_them() -> None:
    truth = _boxes(LEFT, SPECK)
    assert score_lesions(_boxes(LEFT, SPECK), truth) == score_lesions(_boxes(LEFT), truth)
    assert score_lesions(_boxes(LEFT), truth).dice == 1.0
    # In millimetres: at 2 mm a side the same 27 voxels are 216 mm³ and count.
    assert score_lesions(_boxes(LEFT), truth, spacing_mm=(2, 2, 2)).dice == pytest.approx(0.5)
    assert score_lesions(_boxes(LEFT), truth, spacing_mm=(1, 1, 1.9)).missed == 1


def test_diagonal_neighbours_are_one_component() -> None:
    truth = _boxes(LEFT)
    corner = _boxes(RIGHT, ((10, 10, 45), 2))
    assert score_lesions(corner, truth).spurious == 1


def test_nothing_anywhere_is_perfect() -> None:
    empty = np.zeros(SHAPE, dtype=bool)
    scores = score_lesions(empty, empty)
    assert (scores.dice, scores.hd95) == (1.0, 0.0)
    assert score_lesions(_boxes(LEFT), empty).dice == 0.0
    missed = score_lesions(empty, _boxes(LEFT))
    assert (missed.dice, missed.hd95, missed.missed) == (0.0, WORST_DISTANCE_MM, 1)
