"""Cross-sections through a tumour: every modality, label and prediction side by side, at three angles.

Shapes: M modality, R region, D H W voxels (z y x) in LPS: x grows to the patient's left, y to the back, z upwards.
"""

import io
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage import CaseInfo, Region
from storage.labels.tasks import seen_of_regions

if TYPE_CHECKING:  # else with the first picture: training has none to draw before its first validation
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec, SubplotSpec
    from matplotlib.patches import Patch
    from matplotlib.transforms import Bbox

PLANES = ("axial", "coronal", "sagittal")
_PANEL_INCHES = 2.1
_MARGIN_MM = 6.0
_TITLE_INCHES, _LEGEND_INCHES, _LINE_INCHES, _SPARE_INCHES = 0.55, 0.3, 0.18, 0.05
_TITLE_POINTS = 6.0  # between a panel and its title
_LETTERS_WIDTH = 0.6  # of a title, in its height: rather too much
_HANDLE_INCHES, _LETTER_INCHES = 0.65, 0.062  # of the legend, likewise


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
) -> "Figure":
    """Return a figure: a row for each plane through the tumour, a column for each modality, label and prediction.

    Cut where the label's tumour is widest, or the prediction's where there is no label. Drawn as radiologists look: the
    front of the head is up in axial views, the crown in the others, the patient's right on the left.
    """
    masks = side_by_side(label_RDHW, predicted_RDHW)
    centre = widest_slices(tumour_to_show(label_RDHW, predicted_RDHW))
    columns = [*modalities, *masks]
    pictures: list[list[NDArray[np.float32]]] = [[], [], []]
    shown: set[str] = set()
    for row, at in enumerate(centre):
        pictures[row] += [_grey(_cut(scan_DHW, row, at)) for scan_DHW in image_MDHW]
        for masks_RDHW in masks.values():
            cuts = np.stack([_cut(mask_DHW, row, at) for mask_DHW in masks_RDHW])
            seen = painted_masks(regions, cuts)
            shown |= {name for name, inside in seen.items() if inside.any()}
            pictures[row].append(_paint(pictures[row][0], regions, seen))
    legend = legend_of(regions, shown)
    figure, panels = _panels(columns, image_MDHW.shape[1:], spacing_mm, legend)
    sides = ((1, 2), (0, 2), (0, 1))
    for row, plane in enumerate(PLANES):
        down, across = (spacing_mm[axis] for axis in sides[row])
        titles = columns if row == 0 else ("",) * len(columns)
        for column, (picture, name) in enumerate(zip(pictures[row], titles, strict=True)):
            place = add_picture(figure, panels[row, column], picture, name, aspect=down / across, fontsize=10)
            if column == 0:
                left, top = place.x0 + 0.01 * place.width, place.y0 + 0.98 * place.height
                figure.text(left, top, plane, color="white", fontsize=7, va="top")
    add_words(figure, title, legend)
    return figure


def _panels(
    columns: Sequence[str], shape_DHW: Sequence[int], spacing_mm: Sequence[float], legend: "Sequence[Patch]"
) -> "tuple[Figure, GridSpec]":
    """An empty figure and the grid of its panels, a row for each plane, all in one scale."""
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    depth, height, width = (side * mm for side, mm in zip(shape_DHW, spacing_mm, strict=True))
    rows_mm, columns_mm = (height, depth, depth), (width, width, height)
    scale = _PANEL_INCHES / max(columns_mm)  # inches a millimetre, the same in every panel
    width_in = _PANEL_INCHES * len(columns)
    height_in = scale * (sum(rows_mm) + _MARGIN_MM * len(rows_mm)) + inches_of_words(width_in, legend)
    figure = Figure(figsize=(width_in, height_in), facecolor="black")
    place = room_for_words(width_in, height_in, legend)
    place |= {"wspace": 0.02, "hspace": _MARGIN_MM * len(rows_mm) / sum(rows_mm)}
    return figure, GridSpec(len(PLANES), len(columns), figure, height_ratios=rows_mm, **place)


def add_picture(
    figure: "Figure",
    panel: "SubplotSpec",
    picture_HW3: NDArray[np.floating[Any]],
    title: str,
    *,
    aspect: float = 1.0,
    fontsize: float,
) -> "Bbox":
    """Show a picture with its title in a panel, as large as it fits; return its place in the figure.

    aspect: of a pixel, its height by its width. Without axes, whose ticks take longer than all the rest to make, though
    nobody sees them.
    """
    from matplotlib.image import BboxImage
    from matplotlib.transforms import TransformedBbox

    width_in, height_in = figure.get_size_inches()
    cell, (height, width) = panel.get_position(figure), picture_HW3.shape[:2]
    place = cell.shrunk_to_aspect(aspect * height / width, cell, height_in / width_in).anchored("C", cell)
    image = BboxImage(TransformedBbox(place, figure.transFigure), interpolation="nearest", data=picture_HW3)
    figure.add_artist(image)
    above = place.y1 + _TITLE_POINTS / 72 / height_in
    figure.text((place.x0 + place.x1) / 2, above, title, color="white", fontsize=fontsize, ha="center")
    return place


def side_by_side(
    label_RDHW: NDArray[np.bool_] | None, predicted_RDHW: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Return what there is to compare, by its title."""
    return {"prediction": predicted_RDHW} if label_RDHW is None else {"label": label_RDHW, "prediction": predicted_RDHW}


def masks_to_show(label_RDHW: NDArray[np.bool_] | None, predicted_RDHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the label's regions; the prediction's where there is no label, or an empty one."""
    return predicted_RDHW if label_RDHW is None or not label_RDHW.any() else label_RDHW


def tumour_to_show(label_RDHW: NDArray[np.bool_] | None, predicted_RDHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where to look: the outermost region, or all of them where it is empty, as with a cavity alone."""
    masks_RDHW = masks_to_show(label_RDHW, predicted_RDHW)
    whole_DHW: NDArray[np.bool_] = masks_RDHW[0]
    return whole_DHW if whole_DHW.any() else np.logical_or.reduce(masks_RDHW)


def painted_masks(regions: Sequence[Region], masks_RDHW: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Return where each region's colour is seen, by name: they are painted over each other in their order.

    So each shows inside the one before. Any number of dimensions will do, slices as well as volumes.
    """
    seen: dict[str, NDArray[np.bool_]] = {}
    covered = np.zeros(masks_RDHW.shape[1:], bool)
    for region, mask in zip(reversed(regions), masks_RDHW[::-1], strict=True):
        seen[region.name] = mask & ~covered
        covered |= mask
    return {region.name: seen[region.name] for region in regions}


def legend_of(regions: Sequence[Region], shown: Collection[str] = ()) -> "list[Patch]":
    """Return what the colours mean.

    `shown` are regions whose colours are there: also those that only masks which do not fit together leave to be seen.
    """
    from matplotlib.patches import Patch

    seen = {region.name: f"{region.title} alone" for region in regions if region.name in shown}
    seen |= seen_of_regions(regions)
    return [Patch(color=region.colour, label=seen[region.name]) for region in regions if region.name in seen]


def inches_of_words(width_in: float, legend: "Sequence[Patch]") -> float:
    """Return the height of titles and legend in a figure of that width."""
    return _TITLE_INCHES + _SPARE_INCHES + _foot_inches(width_in, legend)


def room_for_words(width_in: float, height_in: float, legend: "Sequence[Patch]") -> dict[str, float]:
    """Return where panels lie in a figure of this size in inches, below its titles and above its legend.

    Placed by hand: a layout engine takes longer than all the rest of a picture.
    """
    bottom = _foot_inches(width_in, legend) / height_in
    return {"left": 0.0, "right": 1.0, "top": 1 - _TITLE_INCHES / height_in, "bottom": bottom}


def add_words(figure: "Figure", title: str, legend: "Sequence[Patch]") -> None:
    """Write the title, and the legend at the figure's foot."""
    width_in, height_in = figure.get_size_inches()
    points = min(10.0, 72 * width_in / (_LETTERS_WIDTH * len(title)))
    figure.suptitle(title, y=1 - 0.08 / height_in, va="top", color="white", fontsize=points)
    columns = math.ceil(len(legend) / _lines_of(width_in, legend))
    figure.legend(
        handles=list(legend), loc="lower center", ncols=columns, frameon=False, labelcolor="white", fontsize=8
    )


def _foot_inches(width_in: float, legend: "Sequence[Patch]") -> float:
    return _LEGEND_INCHES + _LINE_INCHES * (_lines_of(width_in, legend) - 1)


def _lines_of(width_in: float, legend: "Sequence[Patch]") -> int:
    """How many lines the legend takes."""
    widest = max(_HANDLE_INCHES + _LETTER_INCHES * len(str(patch.get_label())) for patch in legend)
    return math.ceil(len(legend) / max(1, int(width_in / widest)))


def as_png(figure: "Figure", *, dpi: int = 100) -> bytes:
    """Return the figure as a PNG file."""
    file = io.BytesIO()
    # Pillow's own level takes twice as long and makes files a tenth smaller.
    figure.savefig(file, format="png", dpi=dpi, pil_kwargs={"compress_level": 3})
    return file.getvalue()


def widest_slices(mask_DHW: NDArray[np.bool_]) -> tuple[int, int, int]:
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
    backdrop: NDArray[np.float32], regions: Sequence[Region], seen: Mapping[str, NDArray[np.bool_]]
) -> NDArray[np.float32]:
    picture = backdrop.copy()
    for region in regions:
        inside = seen[region.name]
        picture[inside] = 0.35 * backdrop[inside] + 0.65 * np.array(region.colour, dtype=np.float32)
    return picture
