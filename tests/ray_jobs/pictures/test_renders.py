"""The render shows every part in its colour, from the side where the tumour is."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ray_jobs.pictures.renders import (
    choose_views,
    draw_render,
    head_mask,
    opacity_by_region,
    side_of,
    take_picture,
    tumour_parts,
    without_holes,
)
from ray_jobs.pictures.surfaces import draw_surface, look, make_surface
from storage.labels.tasks import GLIOMA_REGIONS, GTV_REGIONS, PAEDIATRIC_REGIONS, POST_TREATMENT_REGIONS

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


def test_the_shell_has_no_holes_within_a_slice() -> None:
    masks = np.random.default_rng(0).random((3, 30, 40)) < 0.6
    wanted = np.stack([ndimage.binary_fill_holes(plane) for plane in masks])
    assert wanted.sum() > masks.sum()
    np.testing.assert_array_equal(without_holes(masks), wanted)


def test_edema_core_and_enhancing_show_in_their_colours_and_brain_in_grey() -> None:
    enhancing = cube(14, 19)
    camera = look((0, 0, -1), (0, -1, 0), middle=(20, 20, 20), radius_mm=30, size=200)
    masks = np.stack([cube(10, 30), enhancing | cube(14, 19, x=7), enhancing])
    parts = tumour_parts(GLIOMA_REGIONS, masks, opacity_by_region(GLIOMA_REGIONS, masks), (1, 1, 1))
    picture = take_picture(None, parts, camera)
    assert picture.shape == (100, 100, 3)
    blue, green, purple = (near(picture, region.colour) for region in GLIOMA_REGIONS)
    assert blue > 500 and green > 40 and purple > 40, (blue, green, purple)
    brain = make_surface(cube(4, 36), (1, 1, 1))
    assert brain is not None
    assert near(take_picture(draw_surface(brain, camera), {}, camera), (1, 1, 1)) > 100
    assert not take_picture(None, {}, camera).any()


def test_what_has_no_voxels_has_no_surface() -> None:
    def seen(masks_RDHW: NDArray[np.bool_]) -> set[str]:
        return set(tumour_parts(GLIOMA_REGIONS, masks_RDHW, opacity_by_region(GLIOMA_REGIONS, masks_RDHW), (1, 1, 1)))

    mask = cube(3, 8)
    assert seen(np.stack([mask, mask, mask])) == {"ET"}  # no edema around it, no core within
    assert seen(np.zeros((3, *SHAPE), bool)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2])
def test_a_case_is_drawn_with_its_label_and_without(rows: int, draw_phantom: Callable[..., bytes]) -> None:
    image = Image.open(io.BytesIO(draw_phantom(draw_render, labelled=rows == 2)))
    assert image.size == (990, 330 * rows + 90)
    pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    seen = {region.name: near(pixels, region.colour) for region in GLIOMA_REGIONS}
    assert seen["WT"] > 300 and seen["ET"] > 300 and seen["TC"] > 60, seen  # the core within what enhances


# Its core within what enhances; a cavity beside them; a cyst and what enhances within the rest of the core.
TUMOURS = {
    "glioma": (GLIOMA_REGIONS, [(2, 8, 30, 0), (3, 12, 24, 0), (1, 15, 21, 0)], {"WT": 0.11, "TC": 1, "ET": 0.16}),
    "post-treatment": (
        POST_TREATMENT_REGIONS,
        [(2, 8, 30, 0), (3, 12, 24, 0), (1, 15, 21, 0), (4, 25, 32, 0)],
        {"ET": 0.16, "NETC": 1, "SNFH": 0.11, "RC": 1},
    ),
    "paediatric": (
        PAEDIATRIC_REGIONS,
        [(2, 8, 30, 0), (6, 10, 28, 0), (5, 13, 18, 0), (3, 20, 25, 0)],
        {"ET": 1, "NET": 0.16, "CC": 1, "ED": 0.11},
    ),
    "gtv": (GTV_REGIONS, [(7, 10, 30, 0)], {"GTV": 1}),
}


@pytest.mark.parametrize("kind", TUMOURS)
def test_no_part_hides_another(kind: str, paint_cubes: Callable[..., NDArray[np.bool_]]) -> None:
    regions, cubes, facing = TUMOURS[kind]
    masks_RDHW = paint_cubes(regions, SHAPE, *cubes)
    opacity = opacity_by_region(regions, masks_RDHW)
    parts = tumour_parts(regions, masks_RDHW, opacity, (1, 1, 1))
    assert {name: part.opacity[0] for name, part in parts.items()} == facing
    camera = look((1, 0.1, -0.1), (0, 0, 1), middle=(20, 20, 20), radius_mm=30, size=120)
    picture = take_picture(None, parts, camera)
    for name, part in parts.items():
        without = take_picture(None, {other: each for other, each in parts.items() if other != name}, camera)
        changed = np.abs(picture - without).max(axis=2) > 0.05
        assert changed.sum() > 20, f"{name} is not seen"
        assert near(picture * changed[..., None], part.colour) > 10, f"{name} is not seen in its colour"


def test_what_lies_around_a_core_is_not_drawn_where_there_is_none_of_it(
    paint_cubes: Callable[..., NDArray[np.bool_]],
) -> None:
    masks_RDHW = paint_cubes(POST_TREATMENT_REGIONS, SHAPE, (3, 12, 24, 0))
    opacity = opacity_by_region(POST_TREATMENT_REGIONS, masks_RDHW)
    assert set(tumour_parts(POST_TREATMENT_REGIONS, masks_RDHW, opacity, (1, 1, 1))) == {"ET"}


@pytest.mark.parametrize("lowest", [0, -1024])
def test_a_head_is_told_from_the_air_around_it_however_bright_its_fat(lowest: int) -> None:
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in (30, 60, 60)), indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    fat = np.where(axes[1] > 0, 2500.0, 400.0)  # at the back of the head: a ring of it would close around all the rest
    scan_DHW = np.select([radius < 0.6, radius < 0.66, radius < 0.75], [400.0, 60.0, fat], 0.0)
    scan_DHW = np.abs(scan_DHW + np.random.default_rng(1).normal(0, 25, scan_DHW.shape)) + lowest
    scan_DHW[2, 5, 5] = 2000  # a speck in the air
    found_DHW = head_mask(scan_DHW, (4.0, 2.0, 2.0))
    head_DHW = radius < 0.75
    filled_DHW = ndimage.binary_fill_holes(found_DHW)
    assert (filled_DHW & head_DHW).sum() / (filled_DHW | head_DHW).sum() > 0.8
    assert not found_DHW[2, 5, 5] and not found_DHW[:, :6].any()
    assert not head_mask(np.zeros((4, 4, 4)), (1.0, 1.0, 1.0)).any()
