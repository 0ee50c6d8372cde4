"""The threshold curves as drawn."""

import numpy as np
import pytest
import torch

from models import ThresholdCounts
from ray_jobs.evaluation.validation import ThresholdCurves
from ray_jobs.pictures.figures import as_pixels, draw_threshold_curves
from storage.labels.tasks import GLI_2021_TASK, GLIOMA_REGIONS, GTV_REGIONS, POST_TREATMENT_REGIONS

REGIONS = GLI_2021_TASK.region_names


def test_threshold_curves_show_each_region_with_the_threshold_chosen() -> None:
    generator = torch.Generator().manual_seed(1)
    counts = ThresholdCounts(num_regions=len(REGIONS))
    probabilities_RDHW = torch.rand(len(REGIONS), 8, 8, 8, generator=generator)
    counts.update("case", probabilities_RDHW, probabilities_RDHW > torch.tensor([0.2, 0.5, 0.8]).reshape(3, 1, 1, 1))
    best = counts.best_per_region()
    iou_TR, dice_TR = (curve.numpy() for curve in counts.curves())
    curves = ThresholdCurves(regions=REGIONS, thresholds_T=counts.thresholds.numpy(), iou_TR=iou_TR, dice_TR=dice_TR)
    figure = draw_threshold_curves(curves, dict(zip(REGIONS, best.threshold, strict=True)), GLIOMA_REGIONS, "chosen")

    assert [axis.get_title() for axis in figure.axes] == [
        f"{region} at {threshold:.3f}" for region, threshold in zip(REGIONS, best.threshold, strict=True)
    ]
    for index, axis in enumerate(figure.axes):
        iou, dice, chosen = axis.get_lines()
        np.testing.assert_array_equal(iou.get_ydata(), iou_TR[:, index])
        assert np.all(dice.get_ydata() >= iou.get_ydata())
        assert chosen.get_xdata()[0] == best.threshold[index]
        peak = iou.get_xdata()[np.argmax(iou.get_ydata())]
        assert abs(peak - best.threshold[index]) < 0.05
    assert as_pixels(figure).std() > 0


@pytest.mark.parametrize("columns", [1, 3])
def test_six_regions_take_two_rows_of_three(columns: int) -> None:
    regions = POST_TREATMENT_REGIONS if columns == 3 else GTV_REGIONS
    grid = np.linspace(0, 1, 5)
    values_TR = np.tile(np.linspace(0.2, 0.9, 5)[:, None], (1, len(regions)))
    names = tuple(region.name for region in regions)
    curves = ThresholdCurves(regions=names, thresholds_T=grid, iou_TR=values_TR, dice_TR=values_TR)
    figure = draw_threshold_curves(curves, dict.fromkeys(names, 0.5), regions, "chosen")
    assert [axis.get_title() for axis in figure.axes] == [f"{name} at 0.500" for name in names]
    places = [axis.get_subplotspec() for axis in figure.axes]
    rows, across = -(-len(regions) // 3), min(3, len(regions))
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [
        (at // 3, at % 3) for at in range(len(regions))
    ]
    assert tuple(figure.get_size_inches()) == (4 * across, 3.2 * rows)
