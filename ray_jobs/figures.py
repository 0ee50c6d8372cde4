"""Cross-sections of a case with its label and prediction, and scores over the threshold.

Shapes: M modality, R region, D H W voxels (z y x) in LPS: x grows to the patient's left, y to the back, z upwards.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ray_jobs.validation import CaseImage, ThresholdCurves
from storage import MODALITIES, REGIONS

# Drawn from the largest region to the smallest, so that each shows inside the one before.
REGION_COLOURS = {"WT": (0.25, 0.55, 0.95), "TC": (0.25, 0.80, 0.35), "ET": (0.75, 0.25, 0.85)}
PLANES = ("axial", "coronal", "sagittal")


def draw_cross_section(image: CaseImage, thresholds: Mapping[str, float]) -> Figure:
    """Return a figure: a row for each plane through the tumour, a column for each modality, label and prediction.

    Drawn as radiologists look: the front of the head is up in axial views, the crown in the others.
    """
    cuts = np.array([thresholds[region] for region in REGIONS]).reshape(-1, 1, 1, 1)
    predicted_RDHW = image.probabilities_RDHW >= cuts
    shown_RDHW = image.regions_RDHW if image.regions_RDHW.any() else predicted_RDHW
    centre = _widest_slices(shown_RDHW[0])
    columns = [*MODALITIES, "label", "prediction"]
    figure = Figure(figsize=(2.1 * len(columns), 2.1 * len(PLANES)), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(PLANES), len(columns))
    for row, plane in enumerate(PLANES):
        scans = [_cut(scan_DHW, row, centre[row]) for scan_DHW in image.image_MDHW]
        backdrop = _grey(scans[0])
        pictures = [_grey(scan) for scan in scans]
        pictures += [
            _paint(backdrop, [_cut(mask_DHW, row, centre[row]) for mask_DHW in regions_RDHW])
            for regions_RDHW in (image.regions_RDHW, predicted_RDHW)
        ]
        for axis, picture, title in zip(axes[row], pictures, columns, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_axis_off()
            if row == 0:
                axis.set_title(title, color="white", fontsize=10)
        axes[row][0].text(2, 4, plane, color="white", fontsize=7, va="top")
    legend = "    ".join(f"{region} ≥ {thresholds[region]:.3f}" for region in REGIONS)
    figure.suptitle(f"{image.case_id}    blue WT, green TC, purple ET    {legend}", color="white", fontsize=10)
    return figure


def draw_threshold_curves(curves: ThresholdCurves, thresholds: Mapping[str, float]) -> Figure:
    """Return a figure: mean IoU and Dice of the cases over the threshold, for each region, with the one chosen."""
    figure = Figure(figsize=(4 * len(REGIONS), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(REGIONS), sharey=True)
    for index, (axis, region) in enumerate(zip(axes, REGIONS, strict=True)):
        colour = REGION_COLOURS[region]
        axis.plot(curves.thresholds_T, curves.iou_TR[:, index], color=colour, label="IoU")
        axis.plot(curves.thresholds_T, curves.dice_TR[:, index], color=colour, linestyle="--", label="Dice")
        axis.axvline(thresholds[region], color="grey", linewidth=1)
        axis.set_title(f"{region} at {thresholds[region]:.3f}", fontsize=10)
        axis.set_xlabel("threshold")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
    axes[0].legend(fontsize=8)
    return figure


def save_cross_section(image: CaseImage, thresholds: Mapping[str, float], path: Path) -> None:
    """Write the case's cross-sections to `path` as PNG."""
    draw_cross_section(image, thresholds).savefig(path, dpi=100)


def as_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Return the drawn figure as (height, width, 3) for TensorBoard."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _widest_slices(mask_DHW: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the slice along z, y and x in which the mask has most voxels; the middle of an empty mask."""
    if not mask_DHW.any():
        depth, height, width = mask_DHW.shape
        return depth // 2, height // 2, width // 2
    z, y, x = (int(mask_DHW.sum(axis=others).argmax()) for others in ((1, 2), (0, 2), (0, 1)))
    return z, y, x


def _cut(array_DHW: NDArray[np.generic], axis: int, index: int) -> NDArray[np.generic]:
    plane = np.take(array_DHW, index, axis=axis)
    return plane if axis == 0 else plane[::-1]  # z grows upwards, rows grow downwards


def _grey(plane: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the plane as RGB in [0, 1], from the 1st to the 99.5th percentile of what is not background."""
    values = np.asarray(plane, dtype=np.float32)
    inside = values[values != 0]
    low, high = np.percentile(inside, (1, 99.5)) if inside.size else (0.0, 1.0)
    grey = np.where(values != 0, np.clip((values - low) / max(high - low, 1e-6), 0, 1), 0)
    return np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)


def _paint(backdrop: NDArray[np.float32], masks: list[NDArray[np.generic]]) -> NDArray[np.float32]:
    picture = backdrop.copy()
    for region, mask in zip(REGIONS, masks, strict=True):
        inside = np.asarray(mask, dtype=bool)
        picture[inside] = 0.35 * backdrop[inside] + 0.65 * np.array(REGION_COLOURS[region], dtype=np.float32)
    return picture
