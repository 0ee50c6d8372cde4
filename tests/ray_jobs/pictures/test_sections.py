"""Cross-sections: what is where, cut through the widest part, in true proportions."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ray_jobs.pictures.sections import draw_sections, sections_figure, tumour_to_show
from storage import MODALITIES
from storage.labels.tasks import ENHANCING_TUMOUR, GLIOMA_REGIONS

SHAPE = (12, 20, 30)
IMAGE = np.random.default_rng(0).integers(1, 99, size=(4, *SHAPE))


def masks(z: int, y: int, x: int) -> NDArray[np.bool_]:
    """A ball of WT, all of it TC and ET as well, widest in the middle."""
    axes = np.meshgrid(*(np.arange(side) - at for side, at in zip(SHAPE, (z, y, x), strict=True)), indexing="ij")
    return np.repeat((sum(axis**2 for axis in axes) <= 6)[None], 3, axis=0)


def test_a_column_for_each_scan_and_for_label_and_prediction() -> None:
    balls = masks(3, 14, 24), masks(8, 5, 6)
    figure = sections_figure("case", GLIOMA_REGIONS, IMAGE, *balls, modalities=MODALITIES, spacing_mm=(3.0, 1.0, 1.0))
    titles = [axis.get_title() for axis in figure.axes[:6]]
    assert titles == ["flair", "t1", "t1ce", "t2", "label", "prediction"]
    scans, labels, predictions = ([axis.images[0].get_array() for axis in figure.axes[at:18:6]] for at in (0, 4, 5))
    assert [picture.shape[:2] for picture in labels] == [(20, 30), (12, 30), (12, 20)]
    middles = [(14, 24), (11 - 3, 24), (11 - 3, 14)]  # z grows upwards, rows downwards
    purple = np.array(ENHANCING_TUMOUR.colour)
    for scan, label, prediction, middle in zip(scans, labels, predictions, middles, strict=True):
        painted = np.argwhere(np.abs(label - scan).sum(axis=2) > 1e-6)
        assert len(painted) == 21 and tuple(painted.mean(axis=0)) == middle
        np.testing.assert_allclose(label[middle], 0.35 * scan[middle] + 0.65 * purple, atol=1e-6)
        np.testing.assert_array_equal(prediction, scan)  # it lies elsewhere: the cut is the label's
    # A voxel is three times as high as wide where z runs down.
    assert [axis.get_aspect() for axis in figure.axes[:18:6]] == [1.0, 3.0, 3.0]


def test_up_is_up_in_coronal_views() -> None:
    image = np.full((1, *SHAPE), 1.0)
    image[0, -1] = 50.0
    figure = sections_figure("case", GLIOMA_REGIONS, image, None, masks(4, 10, 15), modalities=("flair",))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["flair", "prediction"]
    coronal = figure.axes[2].images[0].get_array()
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
