"""Plain scores of whole cases and the areas of surface elements against MONAI's."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from scoring import score_case
from scoring.surface_elements import CORNERS, areas_of_codes
from storage.labels.conventions import ENHANCING
from storage.labels.tasks import TASKS

pytest.importorskip("monai", reason="monai isn't installed (pip install .[dev])")
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from monai.metrics.utils import create_table_neighbour_code_to_surface_area


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (0.7, 1.3, 2.9)])
def test_areas_are_those_of_the_published_table(spacing_mm: tuple[float, float, float]) -> None:
    """The table, made of rules here, has an area for each of the 256 codes; its corners are counted from 128 down."""
    wanted = create_table_neighbour_code_to_surface_area(spacing_mm)[0].numpy()
    theirs_of_ours = [sum(128 >> bit for bit in range(len(CORNERS)) if code >> bit & 1) for code in range(256)]
    np.testing.assert_allclose(areas_of_codes(spacing_mm), wanted[theirs_of_ours], rtol=0, atol=1e-6)


def test_an_area_is_summed_from_its_largest_part_down_as_in_double_precision_the_table_has_it() -> None:
    large, small = math.sqrt(3) / 4, math.sqrt(3) / 8
    assert small + large + small + large != large + large + small + small
    assert areas_of_codes((1.0, 1.0, 1.0))[0b00010111] == large + large + small + small


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 1.0, 0.8)])
def test_plain_scores_are_monais(spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> None:
    noise = rng.standard_normal((2, 24, 22, 20))
    masks = np.array([ndimage.gaussian_filter(one, 1.5) > 0.1 for one in noise])
    predicted, true = masks.astype(np.uint8) * ENHANCING
    scores = score_case(predicted, true, task=TASKS["gli-2023"], rules="plain", spacing_mm=spacing_mm)
    tensors = [torch.from_numpy(mask[None, None]).float() for mask in masks]
    wanted = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing_mm)
    assert scores["ET"]["hd95"] == pytest.approx(float(wanted), abs=1e-5)
    both = {"y_pred": tensors[0], "y": tensors[1], "include_background": True}
    assert scores["ET"]["dice"] == pytest.approx(float(compute_dice(**both)))
    assert scores["ET"]["iou"] == pytest.approx(float(compute_iou(**both)))
    assert 0 < scores["ET"]["iou"] < scores["ET"]["dice"] < 1
