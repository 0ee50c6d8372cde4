"""The render shows every part in its colour, from the side where the tumour is."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ray_jobs.pictures.renders import choose_views, draw_render, region_surfaces, side_of, take_picture
from ray_jobs.pictures.surfaces import draw_surface, look, make_surface
from storage.labels.tasks import GLIOMA_REGIONS

SHAPE = (40, 40, 40)


def cube(low: int, high: int, x: int = 0) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, bool)
    mask[low:high, low:high, low + x : high + x] = True
    return mask


def near(picture: NDArray[np.float32], colour: tuple[float, float, float]) -> int:
    """Pixels of the hue, however bright."""
    lit = picture.max(axis=2) > 0.08
    hues = picture / np.maximum(np.linalg.norm(picture, axis=2, keepdims=True), 1e-6)
    wanted = np.array(colour) / np.linalg.norm(colour)
    return int((lit & (hues @ wanted > 0.96)).sum())


def test_the_tumours_side_is_where_most_of_it_lies() -> None:
    brain = cube(5, 35)
    tumour = cube(16, 24, x=9)
    assert side_of(tumour, brain) == 1  # x grows to the patient's left
    tumour[20, 20, 5:12] = True  # a few voxels far on the other side
    assert side_of(tumour, brain) == 1
    assert side_of(tumour[:, :, ::-1], brain) == -1
    assert side_of(np.zeros_like(brain), brain) == 1
    left, right = choose_views(1), choose_views(-1)
    assert [view.name for view in left] == ["from the front, left", "from the left", "from above, front up"]
    assert left[1].towards[0] < 0 < right[1].towards[0]  # who looks from the left looks to the right


def test_edema_core_and_enhancing_show_in_their_colours_and_brain_in_grey() -> None:
    enhancing = cube(14, 19)
    camera = look((0, 0, -1), (0, -1, 0), middle=(20, 20, 20), radius_mm=30, size=200)
    surfaces = region_surfaces(
        GLIOMA_REGIONS, np.stack([cube(10, 30), enhancing | cube(14, 19, x=7), enhancing]), (1, 1, 1)
    )
    picture = take_picture(None, GLIOMA_REGIONS, surfaces, camera)
    assert picture.shape == (100, 100, 3)
    blue, green, purple = (near(picture, region.colour) for region in GLIOMA_REGIONS)
    assert blue > 500 and green > 40 and purple > 40, (blue, green, purple)
    brain = make_surface(cube(4, 36), (1, 1, 1))
    assert brain is not None
    assert near(take_picture(draw_surface(brain, camera), GLIOMA_REGIONS, {}, camera), (1, 1, 1)) > 100
    assert not take_picture(None, GLIOMA_REGIONS, {}, camera).any()


def test_what_has_no_voxels_has_no_surface() -> None:
    mask = cube(3, 8)
    assert set(region_surfaces(GLIOMA_REGIONS, np.stack([mask, mask, mask]), (1, 1, 1))) == {"WT", "ET"}
    assert region_surfaces(GLIOMA_REGIONS, np.zeros((3, *SHAPE), bool), (1, 1, 1)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2])
def test_a_case_is_drawn_with_its_label_and_without(rows: int, draw_phantom: Callable[..., bytes]) -> None:
    image = Image.open(io.BytesIO(draw_phantom(draw_render, labelled=rows == 2)))
    assert image.size == (990, 330 * rows + 90)
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    seen = {region.name: near(pixels, region.colour) for region in GLIOMA_REGIONS}
    assert seen["WT"] > 300 and seen["ET"] > 300 and seen["TC"] > 60, seen  # the core within what enhances
