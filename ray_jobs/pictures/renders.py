"""A case in three dimensions: the brain as a shell of glass, and in it label and prediction, from the tumour's side.

Shapes: M modality, R region, D H W voxels (z y x) in LPS: x grows to the patient's left, y to the back, z upwards.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from ray_jobs.pictures.sections import add_words, as_png, room_for_words, side_by_side, tumour_to_show
from ray_jobs.pictures.surfaces import Array, Camera, Layer, Surface, blend, draw_surface, look, make_surface
from storage import CaseInfo, Region

PIXELS = 330
_FINER = 2  # drawn at twice the size, then averaged: smooth rims
_GREY = (0.88, 0.88, 0.86)
_BACKGROUND = (0.0, 0.0, 0.0)
# Opacity of what looks at the viewer, and what is added towards the rims.
_SHELL_OPACITY = (0.1, 0.65)
_OUTER, _SOLID, _INNER = (0.11, 0.6), (1.0, 0.0), (0.16, 0.8)
_BRAIN_STEP_MM = 1.8


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
) -> bytes:
    """Return brain with label and with prediction, from three sides, as PNG."""
    masks = side_by_side(label_RDHW, predicted_RDHW)
    brain_DHW = (image_MDHW != 0).any(axis=0)
    views = choose_views(side_of(tumour_to_show(label_RDHW, predicted_RDHW), brain_DHW))
    brain = brain_surface(brain_DHW, case.spacing)
    tumours = {name: region_surfaces(regions, masks_RDHW, case.spacing) for name, masks_RDHW in masks.items()}
    height_in = 3.3 * len(masks) + 0.9
    figure = Figure(figsize=(3.3 * len(views), height_in), facecolor="black")
    place = room_for_words(height_in) | {"wspace": 0.03, "hspace": 0.12}
    axes = figure.subplots(len(masks), len(views), squeeze=False, gridspec_kw=place)
    for column, view in enumerate(views):
        camera = _camera_for(brain, view)
        shell = draw_surface(brain, camera) if brain is not None else None
        for row, (name, surfaces) in enumerate(tumours.items()):
            axis = axes[row][column]
            axis.imshow(take_picture(shell, regions, surfaces, camera), interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(f"{name} {view.name}", color="white", fontsize=9)
    add_words(figure, case.case_id, regions)
    return as_png(figure)


def brain_surface(brain_DHW: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Surface | None:
    """Return the outside of the brain, holes filled, with triangles of about two millimetres."""
    step = max(1, round(_BRAIN_STEP_MM / min(spacing_mm)))
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in brain_DHW])
    return make_surface(filled, spacing_mm, blur=1.0, step=step)


def region_surfaces(
    regions: Sequence[Region], masks_RDHW: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[str, Surface]:
    """Return the surface of what each colour fills, by region: of one between others, without those within it."""
    parts: dict[str, Surface | None] = {}
    for region, mask_DHW in zip(regions, masks_RDHW, strict=True):
        filled_DHW = mask_DHW
        if _opacity_of(region, regions) == _SOLID:
            within = [inner for inner, other in zip(masks_RDHW, regions, strict=True) if _lies_in(other, region)]
            filled_DHW = mask_DHW & ~np.any(within, axis=0)
        parts[region.name] = make_surface(filled_DHW, spacing_mm)
    return {region: surface for region, surface in parts.items() if surface is not None}


def _lies_in(inner: Region, outer: Region) -> bool:
    return set(inner.labels) < set(outer.labels)


def _opacity_of(region: Region, regions: Sequence[Region]) -> tuple[float, float]:
    if not any(_lies_in(other, region) for other in regions):
        return _INNER
    return _SOLID if any(_lies_in(region, other) for other in regions) else _OUTER


def side_of(tumour_DHW: NDArray[np.bool_], brain_DHW: NDArray[np.bool_]) -> int:
    """Return 1 where the tumour lies to the patient's left of the brain's middle, else -1."""
    if not tumour_DHW.any():
        return 1
    columns = np.arange(tumour_DHW.shape[2])
    tumour, brain = (np.average(columns, weights=mask.sum(axis=(0, 1))) for mask in (tumour_DHW, brain_DHW))
    return 1 if tumour >= brain else -1


def take_picture(shell: Layer | None, regions: Sequence[Region], surfaces: dict[str, Surface], camera: Camera) -> Array:
    """Return picture_HW3 of the brain's layer with the tumour's surfaces in it."""
    seen = {region: draw_surface(surface, camera) for region, surface in surfaces.items()}
    layers: list[tuple[Layer, Sequence[float], Array]] = [
        (seen[region.name], region.colour, _opacity(seen[region.name], *_opacity_of(region, regions)))
        for region in regions
        if region.name in seen
    ]
    if shell is not None:
        layers.append((shell, _GREY, _opacity(shell, *_SHELL_OPACITY)))
    picture = blend(layers, _BACKGROUND, camera.size)
    side = camera.size // _FINER
    return picture.reshape(side, _FINER, side, _FINER, 3).mean(axis=(1, 3))


def _opacity(layer: Layer, facing: float, rim: float) -> Array:
    opacity_HW: Array = facing + rim * (1 - layer.facing_HW) ** 1.5
    return opacity_HW


def _camera_for(brain: Surface | None, view: View) -> Camera:
    corners = np.zeros((1, 3), np.float32) if brain is None else brain.vertices_V3
    low, high = corners.min(0), corners.max(0)
    middle = (low + high) / 2
    radius = float(np.linalg.norm(corners - middle, axis=1).max()) + 2.0
    return look(view.towards, view.up, middle=middle.tolist(), radius_mm=radius, size=PIXELS * _FINER)
