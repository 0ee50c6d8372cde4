"""Cross-sections through a tumour: every modality, label and prediction side by side, at three angles.

Shapes: M modality, R region, D H W voxels (z y x) in LPS: x grows to the patient's left, y to the back, z upwards.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from storage import CaseInfo, Region
from storage.labels.tasks import seen_of_regions

PLANES = ("axial", "coronal", "sagittal")
_PANEL_INCHES = 2.1
_MARGIN_MM = 6.0
_TITLE_INCHES, _LEGEND_INCHES = 0.55, 0.3


def draw_sections(
    case: CaseInfo,
    regions: Sequence[Region],
    image_MDHW: NDArray[Any],
    label_RDHW: NDArray[np.bool_] | None,
    predicted_RDHW: NDArray[np.bool_],
) -> bytes:
    """Return the case's cross-sections as PNG."""
    figure = sections_figure(
        case.case_id,
        regions,
        image_MDHW,
        label_RDHW,
        predicted_RDHW,
        modalities=case.modalities,
        spacing_mm=case.spacing,
    )
    return as_png(figure)


def sections_figure(
    title: str,
    regions: Sequence[Region],
    image_MDHW: NDArray[Any],
    label_RDHW: NDArray[np.bool_] | None,
    predicted_RDHW: NDArray[np.bool_],
    *,
    modalities: Sequence[str],
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Figure:
    """Return a figure: a row for each plane through the tumour, a column for each modality, label and prediction.

    Cut where the label's tumour is widest, or the prediction's where there is no label. Drawn as radiologists look: the
    front of the head is up in axial views, the crown in the others, the patient's right on the left.
    """
    masks = side_by_side(label_RDHW, predicted_RDHW)
    centre = _widest_slices(tumour_to_show(label_RDHW, predicted_RDHW))
    columns = [*modalities, *masks]
    depth, height, width = (side * mm for side, mm in zip(image_MDHW.shape[1:], spacing_mm, strict=True))
    rows_mm, columns_mm = (height, depth, depth), (width, width, height)
    scale = _PANEL_INCHES / max(columns_mm)  # inches a millimetre, the same in every panel
    width_in, height_in = _PANEL_INCHES * len(columns), scale * (sum(rows_mm) + _MARGIN_MM * len(rows_mm)) + 0.9
    figure = Figure(figsize=(width_in, height_in), facecolor="black")
    place = room_for_words(height_in) | {"wspace": 0.02, "hspace": _MARGIN_MM * len(rows_mm) / sum(rows_mm)}
    axes = figure.subplots(len(PLANES), len(columns), squeeze=False, gridspec_kw={"height_ratios": rows_mm, **place})
    sides = ((1, 2), (0, 2), (0, 1))
    for row, plane in enumerate(PLANES):
        scans = [_cut(scan_DHW, row, centre[row]) for scan_DHW in image_MDHW]
        pictures = [_grey(scan) for scan in scans]
        pictures += [
            _paint(_grey(scans[0]), regions, [_cut(mask_DHW, row, centre[row]) for mask_DHW in masks_RDHW])
            for masks_RDHW in masks.values()
        ]
        down, across = (spacing_mm[axis] for axis in sides[row])
        for axis, picture, name in zip(axes[row], pictures, columns, strict=True):
            axis.imshow(picture, interpolation="nearest", aspect=down / across)
            axis.set_axis_off()
            if row == 0:
                axis.set_title(name, color="white", fontsize=10)
        axes[row][0].text(0.01, 0.98, plane, color="white", fontsize=7, va="top", transform=axes[row][0].transAxes)
    add_words(figure, title, regions)
    return figure


def side_by_side(
    label_RDHW: NDArray[np.bool_] | None, predicted_RDHW: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Return what there is to compare, by its title."""
    return {"prediction": predicted_RDHW} if label_RDHW is None else {"label": label_RDHW, "prediction": predicted_RDHW}


def tumour_to_show(label_RDHW: NDArray[np.bool_] | None, predicted_RDHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the whole tumour as labelled; as predicted where there is no label, or an empty one."""
    whole_DHW: NDArray[np.bool_] = (predicted_RDHW if label_RDHW is None or not label_RDHW.any() else label_RDHW)[0]
    return whole_DHW


def room_for_words(height_in: float) -> dict[str, float]:
    """Return where panels lie in a figure of this height in inches, below its titles and above its legend.

    Placed by hand: a layout engine takes longer than all the rest of a picture.
    """
    return {"left": 0.0, "right": 1.0, "top": 1 - _TITLE_INCHES / height_in, "bottom": _LEGEND_INCHES / height_in}


def add_words(figure: Figure, title: str, regions: Sequence[Region]) -> None:
    """Write the title, and at the figure's foot what the colours mean."""
    figure.suptitle(title, y=1 - 0.08 / figure.get_figheight(), va="top", color="white", fontsize=10)
    seen = seen_of_regions(regions)
    handles = [Patch(color=region.colour, label=seen[region.name]) for region in regions if region.name in seen]
    place = "lower center"
    figure.legend(handles=handles, loc=place, ncols=len(handles), frameon=False, labelcolor="white", fontsize=8)


def as_png(figure: Figure, *, dpi: int = 100) -> bytes:
    """Return the figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


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


def _paint(
    backdrop: NDArray[np.float32], regions: Sequence[Region], masks: list[NDArray[np.generic]]
) -> NDArray[np.float32]:
    """From the largest region to the smallest, so that each shows inside the one before."""
    picture = backdrop.copy()
    for region, mask in zip(regions, masks, strict=True):
        inside = np.asarray(mask, dtype=bool)
        picture[inside] = 0.35 * backdrop[inside] + 0.65 * np.array(region.colour, dtype=np.float32)
    return picture
