from dataclasses import replace

import pytest
import torch

from models import CaseScores, score_case
from models.distances import WORST_DISTANCE_MM


def test_counts_by_hand() -> None:
    # Region 0: 2 hits, 3 predicted, 4 present. Region 1: no hit.
    predicted = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]).reshape(2, 1, 1, 6)
    present = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]]).reshape(2, 1, 1, 6)
    scores = score_case(predicted, present)
    assert scores.iou == pytest.approx((2 / 5, 0))
    assert scores.dice == pytest.approx((4 / 7, 0))


def test_empty_regions_follow_the_documented_convention() -> None:
    empty, full = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    assert score_case(empty, empty) == CaseScores(
        iou=(1.0,),
        dice=(1.0,),
        hd95=(0.0,),
        lesion_dice=(1.0,),
        lesion_hd95=(0.0,),
    )
    worst = (WORST_DISTANCE_MM,)
    nothing = CaseScores(iou=(0.0,), dice=(0.0,), hd95=worst, lesion_dice=(0.0,), lesion_hd95=worst)
    assert score_case(full, empty) == nothing
    # Eight voxels are too small a lesion for BraTS 2023 to score when missed.
    assert score_case(empty, full) == replace(nothing, lesion_dice=(1.0,), lesion_hd95=(0.0,))


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks of one shape, got \(1, 2\) and \(1, 3\)"):
        score_case(torch.zeros(1, 2), torch.zeros(1, 3))
