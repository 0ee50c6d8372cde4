"""Figures of a training run: cross-sections of a case with its label and prediction, and scores over the threshold."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models import Decision
from ray_jobs.evaluation.case_image import CaseImage
from ray_jobs.evaluation.validation import ThresholdCurves
from ray_jobs.pictures.sections import sections_figure
from ray_jobs.settings.objective import RULES
from storage import Region

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BRIGHTEST = 0.6


def draw_cross_section(image: CaseImage, decision: Decision) -> "Figure":
    """Return a figure: a row for each plane through the tumour, a column for each modality, label and prediction."""
    cuts = zip(image.regions, decision.thresholds, strict=True)
    said = "    ".join(f"{region.name} ≥ {threshold:.3f}" for region, threshold in cuts)
    return sections_figure(
        f"{image.case_id}    {said}",
        image.regions,
        image.image_MDHW,
        image.regions_RDHW,
        image.predicted(decision),
        modalities=image.modalities,
    )


def draw_threshold_curves(
    curves: ThresholdCurves, thresholds: Mapping[str, float], regions: Sequence[Region], choice: str
) -> "Figure":
    """Return a figure: mean IoU and Dice of the cases over the threshold, for each region, with the one chosen.

    `choice` says how they were chosen.
    """
    from matplotlib.figure import Figure

    figure, axes = Figure(layout="constrained"), []
    figure.suptitle(f"{choice} ({RULES} rules)", fontsize=9)
    rows, columns = rows_and_columns(len(regions))
    figure.set_size_inches(4 * columns, 3.2 * rows)
    for index, region in enumerate(regions):
        axis = figure.add_subplot(rows, columns, index + 1)
        axes.append(axis)
        colour, chosen = on_white(region.colour), thresholds[region.name]
        axis.plot(curves.thresholds_T, curves.iou_TR[:, index], color=colour, label="IoU")
        axis.plot(curves.thresholds_T, curves.dice_TR[:, index], color=colour, linestyle="--", label="Dice")
        axis.axvline(chosen, color="grey", linewidth=1)
        axis.set_title(f"{region.name} at {chosen:.3f}", fontsize=10)
        axis.set_xlabel("threshold")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
    axes[0].legend(fontsize=8)
    return figure


def rows_and_columns(panels: int) -> tuple[int, int]:
    """Return how panels are laid out: in rows of three at most."""
    columns = min(3, panels)
    return math.ceil(panels / columns), columns


def on_white(colour: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return a region's colour for lines on paper: what is bright on black would hardly be seen there."""
    red, green, blue = colour
    light = 0.30 * red + 0.59 * green + 0.11 * blue
    darker = min(1.0, _BRIGHTEST / light)
    return red * darker, green * darker, blue * darker


def as_pixels(figure: "Figure") -> NDArray[np.uint8]:
    """Return the drawn figure as (height, width, 3) for TensorBoard."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
