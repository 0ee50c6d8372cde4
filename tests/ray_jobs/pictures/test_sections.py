"""Cross-sections: what is where, cut through the widest part, in true proportions."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from ray_jobs.pictures.sections import draw_sections, sections_figure, tumour_to_show
from storage import MODALITIES, Region
from storage.labels.tasks import ENHANCING_TUMOUR, GLIOMA_REGIONS, POST_TREATMENT_REGIONS, seen_of_regions

SHAPE = (12, 20, 30)
IMAGE = np.random.default_rng(0).integers(1, 99, size=(4, *SHAPE))


def masks(z: int, y: int, x: int) -> NDArray[np.bool_]:
    """A ball of WT, all of it TC and ET as well, widest in the middle."""
    axes = np.meshgrid(*(np.arange(side) - at for side, at in zip(SHAPE, (z, y, x), strict=True)), indexing="ij")
    return np.repeat((sum(axis**2 for axis in axes) <= 6)[None], 3, axis=0)


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_text()]


def test_a_column_for_each_scan_and_for_label_and_prediction() -> None:
    balls = masks(3, 14, 24), masks(8, 5, 6)
    figure = sections_figure("case", GLIOMA_REGIONS, IMAGE, *balls, modalities=MODALITIES, spacing_mm=(3.0, 1.0, 1.0))
    assert words_of(figure)[:7] == ["flair", "axial", "t1", "t1ce", "t2", "label", "prediction"]
    scans, labels, predictions = ([panel.get_array() for panel in figure.artists[at:18:6]] for at in (0, 4, 5))
    assert [picture.shape[:2] for picture in labels] == [(20, 30), (12, 30), (12, 20)]
    middles = [(14, 24), (11 - 3, 24), (11 - 3, 14)]  # z grows upwards, rows downwards
    purple = np.array(ENHANCING_TUMOUR.colour)
    for scan, label, prediction, middle in zip(scans, labels, predictions, middles, strict=True):
        painted = np.argwhere(np.abs(label - scan).sum(axis=2) > 1e-6)
        assert len(painted) == 21 and tuple(painted.mean(axis=0)) == middle
        np.testing.assert_allclose(label[middle], 0.35 * scan[middle] + 0.65 * purple, atol=1e-6)
        np.testing.assert_array_equal(prediction, scan)  # it lies elsewhere: the cut is the label's
    # A voxel is three times as high as wide where z runs down.
    boxes = [panel.get_window_extent() for panel in figure.artists[:18:6]]
    shapes = [(box.height / scan.shape[0], box.width / scan.shape[1]) for box, scan in zip(boxes, scans, strict=True)]
    assert [high / wide for high, wide in shapes] == pytest.approx([1.0, 3.0, 3.0])


def test_up_is_up_in_coronal_views() -> None:
    image = np.full((1, *SHAPE), 1.0)
    image[0, -1] = 50.0
    figure = sections_figure("case", GLIOMA_REGIONS, image, None, masks(4, 10, 15), modalities=("flair",))
    assert words_of(figure)[:3] == ["flair", "axial", "prediction"]
    coronal = figure.artists[2].get_array()
    assert coronal[0].min() > 0.9 and coronal[1:].max() < 0.1


def test_the_prediction_says_where_to_cut_only_without_a_label() -> None:
    label, predicted, empty = masks(5, 10, 20), masks(3, 8, 9), np.zeros((3, *SHAPE), bool)
    np.testing.assert_array_equal(tumour_to_show(label, predicted), label[0])
    np.testing.assert_array_equal(tumour_to_show(empty, predicted), predicted[0])
    np.testing.assert_array_equal(tumour_to_show(None, predicted), predicted[0])


@pytest.mark.parametrize("columns", [5, 6])
def test_a_case_is_drawn_with_its_label_and_without(columns: int, draw_phantom: Callable[..., bytes]) -> None:
    image = Image.open(io.BytesIO(draw_phantom(draw_sections, labelled=columns == 6)))
    assert image.size[0] == 210 * columns
    assert np.asarray(image.convert("RGB")).std() > 20


def cubes_of(regions: Sequence[Region]) -> list[tuple[int, int, int, int]]:
    """A cube of each label, side by side along x."""
    labels = sorted({label for region in regions for label in region.labels})
    return [(label, 3, 6, 4 * place) for place, label in enumerate(labels)]


def legend_of_figure(figure: Figure) -> dict[str, tuple[float, ...]]:
    (legend,) = figure.legends
    return {
        text.get_text(): patch.get_facecolor()[:3]
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }


def test_every_label_has_the_colour_that_the_legend_says(
    regions: Sequence[Region], paint_cubes: Callable[..., NDArray[np.bool_]]
) -> None:
    cubes = cubes_of(regions)
    truth_RDHW = paint_cubes(regions, SHAPE, *cubes)
    figure = sections_figure("case", regions, IMAGE[:1], truth_RDHW, truth_RDHW, modalities=("t1ce",))
    scan, label, prediction = (panel.get_array() for panel in figure.artists[:3])
    colours = {region.name: np.array(region.colour) for region in regions}
    said = legend_of_figure(figure)
    assert list(said) == list(seen_of_regions(regions).values()) and len(said) == len(cubes)
    for value, low, _, right in cubes:
        (last,) = [region for region in regions if value in region.labels][-1:]
        at = low, low + right
        np.testing.assert_allclose(label[at], 0.35 * scan[at] + 0.65 * colours[last.name], atol=1e-6)
        np.testing.assert_array_equal(prediction[at], label[at])
        np.testing.assert_allclose(said[seen_of_regions(regions)[last.name]], last.colour)
    np.testing.assert_array_equal(label[0], scan[0])


def test_what_only_an_outer_region_holds_is_in_the_legend_of_masks_that_do_not_fit(
    paint_cubes: Callable[..., NDArray[np.bool_]],
) -> None:
    truth_RDHW = paint_cubes(POST_TREATMENT_REGIONS, SHAPE, (2, 3, 6, 0))
    predicted_RDHW = truth_RDHW.copy()
    predicted_RDHW[4] = False  # whole tumour, but no hyperintensity
    figure = sections_figure(
        "a case's name" + 6 * "    WT ≥ 0.500", POST_TREATMENT_REGIONS, IMAGE[:1], truth_RDHW, predicted_RDHW,
        modalities=("t1ce",),
    )  # fmt: skip
    said = legend_of_figure(figure)
    assert said["whole tumour alone"] == POST_TREATMENT_REGIONS[0].colour and "tumour core alone" not in said
    # Three columns are narrow: the legend takes several lines, below all panels and within the figure.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    words = figure.legends[0].get_window_extent()
    width, height = canvas.get_width_height()
    assert words.x0 >= 0 and words.x1 <= width and words.y0 >= 0 and words.height > 30
    assert words.y1 <= min(panel.get_window_extent().y0 for panel in figure.artists) + 1
    title = figure.get_suptitle() and figure._suptitle.get_window_extent()
    assert title.x0 >= 0 and title.x1 <= width and title.y1 <= height


def test_a_cavity_alone_is_looked_at(paint_cubes: Callable[..., NDArray[np.bool_]]) -> None:
    cavity_RDHW = paint_cubes(POST_TREATMENT_REGIONS, SHAPE, (4, 3, 6, 0))
    np.testing.assert_array_equal(tumour_to_show(cavity_RDHW, np.zeros_like(cavity_RDHW)), cavity_RDHW[5])
