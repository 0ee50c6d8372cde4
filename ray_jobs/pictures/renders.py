"""A case in three dimensions: brain or head as a shell of glass, in it label and prediction, from the tumour's side.

Shapes: M modality, R region, D H W voxels (z y x) in LPS: x grows to the patient's left, y to the back, z upwards.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from ray_jobs.pictures.sections import (
    add_picture,
    add_words,
    as_png,
    inches_of_words,
    legend_of,
    masks_to_show,
    painted_masks,
    room_for_words,
    side_by_side,
    tumour_to_show,
)
from ray_jobs.pictures.surfaces import Array, Camera, Layer, Surface, blend, draw_surface, look, make_surface
from scoring.components import find_box
from storage import CaseInfo, Region

PIXELS = 330
_PICTURE_INCHES = PIXELS / 100
_FINER = 2  # drawn at twice the size, then averaged: smooth rims
_GREY = (0.88, 0.88, 0.86)
_BACKGROUND = (0.0, 0.0, 0.0)
# Opacity of what looks at the viewer, and what is added towards the rims.
_SHELL_OPACITY = (0.1, 0.65)
_OUTER, _SOLID, _INNER = (0.11, 0.6), (1.0, 0.0), (0.16, 0.8)
_BRAIN_STEP_MM = 1.8
_HEAD_BLUR_MM = 2.0
_EXTENT = (5, 95)  # percentiles: a stray voxel makes nothing wide


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What one colour shows of the tumour."""

    surface: Surface
    colour: tuple[float, float, float]
    opacity: tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """Where a picture is taken from, in words and in LPS."""

    name: str
    towards: tuple[float, float, float]
    up: tuple[float, float, float]


def choose_views(tumour_side: int) -> tuple[View, ...]:
    """Return the viewpoints: `tumour_side` is 1 for the patient's left, -1 for the right; nothing lies before it."""
    side = "left" if tumour_side > 0 else "right"
    return (
        View(name=f"from the front, {side}", towards=(-0.75 * tumour_side, 0.85, -0.45), up=(0, 0, 1)),
        View(name=f"from the {side}", towards=(-tumour_side, 0, 0), up=(0, 0, 1)),
        View(name="from above, front up", towards=(0, 0, -1), up=(0, -1, 0)),
    )


def draw_render(
    case: CaseInfo,
    regions: Sequence[Region],
    image_MDHW: NDArray[Any],
    label_RDHW: NDArray[np.bool_] | None,
    predicted_RDHW: NDArray[np.bool_],
    *,
    skull_stripped: bool = True,
) -> bytes:
    """Return brain with label and with prediction, from three sides, as PNG; the head, where scans show all of it."""
    masks = side_by_side(label_RDHW, predicted_RDHW)
    shell_DHW = (image_MDHW != 0).any(axis=0) if skull_stripped else head_mask(image_MDHW[0], case.spacing)
    views = choose_views(side_of(tumour_to_show(label_RDHW, predicted_RDHW), shell_DHW))
    shell = shell_surface(shell_DHW, case.spacing)
    opacity = opacity_by_region(regions, masks_to_show(label_RDHW, predicted_RDHW))
    tumours = {name: tumour_parts(regions, masks_RDHW, opacity, case.spacing) for name, masks_RDHW in masks.items()}
    legend, width_in = legend_of(regions), _PICTURE_INCHES * len(views)
    height_in = _PICTURE_INCHES * len(masks) + inches_of_words(width_in, legend)
    figure = Figure(figsize=(width_in, height_in), facecolor="black")
    place = room_for_words(width_in, height_in, legend) | {"wspace": 0.03, "hspace": 0.12}
    panels = GridSpec(len(masks), len(views), figure, **place)
    for column, view in enumerate(views):
        camera = _camera_for(shell, view)
        seen = draw_surface(shell, camera) if shell is not None else None
        for row, (name, parts) in enumerate(tumours.items()):
            picture_HW3 = take_picture(seen, parts, camera)
            add_picture(figure, panels[row, column], picture_HW3, f"{name} {view.name}", fontsize=9)
    add_words(figure, case.case_id, legend)
    return as_png(figure)


def head_mask(scan_DHW: NDArray[Any], spacing_mm: Sequence[float]) -> NDArray[np.bool_]:
    """Return what is brighter than the air around the head, without the noise there: its largest piece.

    Of the scan's square root, as fat shines so that Otsu's threshold would part it from all else.
    """
    smooth_DHW = ndimage.gaussian_filter(scan_DHW.astype(np.float32), [_HEAD_BLUR_MM / mm for mm in spacing_mm])
    root_DHW = np.sqrt(smooth_DHW - smooth_DHW.min())
    pieces_DHW, _ = ndimage.label(root_DHW > threshold_otsu(root_DHW.ravel()))
    sizes = np.bincount(pieces_DHW.ravel())
    sizes[0] = 0
    largest_DHW: NDArray[np.bool_] = pieces_DHW == sizes.argmax()
    return largest_DHW if sizes.any() else np.zeros(scan_DHW.shape, bool)


def shell_surface(shell_DHW: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Surface | None:
    """Return the outside of brain or head, holes filled, with triangles of about two millimetres."""
    step = max(1, round(_BRAIN_STEP_MM / min(spacing_mm)))
    return make_surface(without_holes(shell_DHW), spacing_mm, blur=1.0, step=step)


def without_holes(mask_DHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask with what it encloses within a slice, of all slices at once."""
    within_slices = np.zeros((3, 3, 3), bool)
    within_slices[1] = ndimage.generate_binary_structure(2, 1)
    padded_DHW = np.pad(~mask_DHW, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    pieces_DHW, _ = ndimage.label(padded_DHW, within_slices)
    filled_DHW: NDArray[np.bool_] = pieces_DHW != pieces_DHW[:, :1, :1]
    return filled_DHW[:, 1:-1, 1:-1]


def surroundings_of(regions: Sequence[Region]) -> dict[str, str]:
    """Return, by the region in whose colour it is seen, the outermost region whose outside lies around a core."""
    painted = {label: region.name for region in regions for label in region.labels}

    def lies_in(inner: Region, outer: Region) -> bool:
        return set(inner.labels) < set(outer.labels)

    def holders(label: int) -> int:
        return sum(label in region.labels for region in regions)

    return {
        painted[min(outer.labels, key=holders)]: outer.name
        for outer in regions
        if any(lies_in(other, outer) for other in regions) and not any(lies_in(outer, other) for other in regions)
    }


def opacity_by_region(regions: Sequence[Region], masks_RDHW: NDArray[np.bool_]) -> dict[str, tuple[float, float]]:
    """Return how each colour is drawn, so that none hides another.

    Of thin glass what lies around a core; of glass what has another colour in its midst; solid what has none, as a
    necrosis within its rim, or a cyst.
    """
    seen = {name: mask_DHW for name, mask_DHW in painted_masks(regions, masks_RDHW).items() if mask_DHW.any()}
    boxes = {name: _extent_of(mask_DHW) for name, mask_DHW in seen.items()}

    def encloses(outer: Array, inner: Array) -> bool:
        middle = inner.mean(axis=0)
        wider = np.ptp(outer, axis=0).prod() > np.ptp(inner, axis=0).prod()
        return bool(wider and (outer[0] <= middle).all() and (middle <= outer[1]).all())

    glass = {name for name, box in boxes.items() if any(encloses(box, other) for other in boxes.values())}
    opacity = {region.name: _INNER if region.name in glass else _SOLID for region in regions}
    return opacity | dict.fromkeys(surroundings_of(regions), _OUTER)


def tumour_parts(
    regions: Sequence[Region],
    masks_RDHW: NDArray[np.bool_],
    opacity: Mapping[str, tuple[float, float]],
    spacing_mm: Sequence[float],
) -> dict[str, Part]:
    """Return what each colour fills, by region; what lies around a core is drawn with what is in it, as an outside."""
    whole, names = surroundings_of(regions), [region.name for region in regions]
    parts: dict[str, Part] = {}
    for region, seen_DHW in zip(regions, painted_masks(regions, masks_RDHW).values(), strict=True):
        filled_DHW = masks_RDHW[names.index(whole[region.name])] if region.name in whole else seen_DHW
        surface = make_surface(filled_DHW, spacing_mm) if seen_DHW.any() else None
        if surface is not None:
            parts[region.name] = Part(surface=surface, colour=region.colour, opacity=opacity[region.name])
    return parts


def _extent_of(mask_DHW: NDArray[np.bool_]) -> Array:
    """The box, low and high, that holds nearly all of a mask that is not empty."""
    box = find_box(mask_DHW, 0)
    within = np.percentile(np.argwhere(mask_DHW[box]), _EXTENT, axis=0)
    return (within + [side.start for side in box]).astype(np.float32)


def side_of(tumour_DHW: NDArray[np.bool_], shell_DHW: NDArray[np.bool_]) -> int:
    """Return 1 where the tumour lies to the patient's left of the middle of brain or head, else -1."""
    if not (tumour_DHW.any() and shell_DHW.any()):
        return 1
    columns = np.arange(tumour_DHW.shape[2])
    tumour, middle = (np.average(columns, weights=mask.sum(axis=(0, 1))) for mask in (tumour_DHW, shell_DHW))
    return 1 if tumour >= middle else -1


def take_picture(shell: Layer | None, parts: Mapping[str, Part], camera: Camera) -> Array:
    """Return picture_HW3 of the shell's layer with the tumour's parts in it."""
    layers: list[tuple[Layer, Sequence[float], Array]] = []
    for part in parts.values():
        layer = draw_surface(part.surface, camera)
        layers.append((layer, part.colour, _opacity(layer, *part.opacity)))
    if shell is not None:
        layers.append((shell, _GREY, _opacity(shell, *_SHELL_OPACITY)))
    picture = blend(layers, _BACKGROUND, camera.size)
    corners = [picture[row::_FINER, column::_FINER] for row in range(_FINER) for column in range(_FINER)]
    smaller: Array = np.sum(corners, axis=0) / len(corners)
    return smaller


def _opacity(layer: Layer, facing: float, rim: float) -> Array:
    away_HW = 1 - layer.facing_HW
    opacity_HW: Array = facing + rim * away_HW * np.sqrt(away_HW)
    return opacity_HW


def _camera_for(shell: Surface | None, view: View) -> Camera:
    corners = np.zeros((1, 3), np.float32) if shell is None else shell.vertices_V3
    low, high = corners.min(0), corners.max(0)
    middle = (low + high) / 2
    radius = float(np.linalg.norm(corners - middle, axis=1).max()) + 2.0
    return look(view.towards, view.up, middle=middle.tolist(), radius_mm=radius, size=PIXELS * _FINER)
