"""Surfaces of masks, and pictures of surfaces: a depth buffer in numpy, so that a view takes a fraction of a second.

Shapes: V vertices, F faces, P points, x y z in millimetres in LPS; H W pixels of a picture.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

Array = NDArray[np.float32]

_NOTHING_MM = np.float32(np.inf)
_LIGHT = (-0.45, 0.65, -0.75)  # right, up, away from the viewer: over the viewer's left shoulder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surface:
    """Triangles around a mask: vertices_V3 in mm, faces_F3 of their indices, outward normals_V3 of length 1."""

    vertices_V3: Array
    faces_F3: NDArray[np.int64]
    normals_V3: Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """Looks along `forward` at `middle`, `right` and `up` being so in the picture of `size` x `size` pixels."""

    forward: Array
    right: Array
    up: Array
    middle: Array
    mm_per_pixel: float
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """What a camera sees of one surface: depth_HW in mm, infinite where there is nothing; light_HW and facing_HW 0..1.

    `facing` is 1 where the surface looks at the camera and 0 at its rim.
    """

    depth_HW: Array
    light_HW: Array
    facing_HW: Array


def make_surface(
    values_DHW: NDArray[np.bool_] | Array,
    spacing_mm: Sequence[float],
    *,
    level: float = 0.5,
    blur: float = 0.8,
    step: int = 1,
) -> Surface | None:
    """Return the surface on which the blurred values are `level`; None where they are that nowhere.

    blur: in voxels; a mask so thin that it would vanish is left as it is. step: voxels between samples, the larger the
    fewer triangles.
    """
    inside = np.argwhere(values_DHW > level)
    if not len(inside):
        return None
    margin = step + int(np.ceil(3 * blur))
    low = inside.min(0)
    box = tuple(slice(a, b + 1) for a, b in zip(low, inside.max(0), strict=True))
    padded = np.pad(values_DHW[box].astype(np.float32), margin)
    smooth = ndimage.gaussian_filter(padded, blur) if blur else padded
    if smooth[::step, ::step, ::step].max() <= level:
        smooth, step = padded, 1
    corners, faces, normals, _ = marching_cubes(smooth, level, spacing=tuple(spacing_mm), step_size=step)
    corners += (low - margin) * np.asarray(spacing_mm)
    normals = normals / np.asarray(spacing_mm)  # skimage's are in voxels
    normals = normals[:, ::-1] / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return Surface(
        vertices_V3=corners[:, ::-1].astype(np.float32), faces_F3=faces, normals_V3=normals.astype(np.float32)
    )


def look(
    towards: Sequence[float], up: Sequence[float], *, middle: Sequence[float], radius_mm: float, size: int
) -> Camera:
    """Return a camera that looks `towards` (LPS), with `up` upwards, at a ball around `middle`."""
    forward = np.asarray(towards, np.float32)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, np.asarray(up, np.float32))
    right = right / np.linalg.norm(right)
    return Camera(
        forward=forward,
        right=right,
        up=np.cross(right, forward),
        middle=np.asarray(middle, np.float32),
        mm_per_pixel=2 * radius_mm / size,
        size=size,
    )


def draw_surface(surface: Surface, camera: Camera) -> Layer:
    """Return what the camera sees: triangles are covered with points less than a pixel apart, and the nearest win."""
    axes = np.stack([camera.right, -camera.up, camera.forward], axis=1)
    seen_V3 = (surface.vertices_V3 - camera.middle) @ axes
    seen_V3[:, :2] = seen_V3[:, :2] / camera.mm_per_pixel + camera.size / 2
    # One row a corner: pixel column, pixel row, depth, then the normal in the same axes.
    corners_F36 = np.concatenate([seen_V3, surface.normals_V3 @ axes], axis=1)[surface.faces_F3]
    first, second = (corners_F36[:, corner, :2] - corners_F36[:, 0, :2] for corner in (1, 2))
    # skimage winds triangles one way around, so those that look away have an area of the other sign.
    corners_F36 = corners_F36[first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]]
    sides = np.linalg.norm(corners_F36[:, :, :2] - corners_F36[:, [1, 2, 0], :2], axis=2).max(axis=1)
    parts = np.ceil(sides * 1.1).astype(int).clip(1, 64)
    points = []
    for count in np.unique(parts):
        weights_K3 = _spread_over_triangle(int(count))
        corners_3FX = corners_F36[parts == count].transpose(1, 0, 2).reshape(3, -1)
        points.append((weights_K3 @ corners_3FX).reshape(-1, 6))
    points_P6 = np.concatenate(points) if points else np.zeros((0, 6), np.float32)
    return _nearest(points_P6[:, :3], points_P6[:, 3:], camera.size)


def _spread_over_triangle(count: int) -> Array:
    """Barycentric weights_K3 of a grid of points, `count` steps a side."""
    first, second = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
    inside = first + second <= count
    pair = np.stack([first[inside], second[inside]], axis=1) / count
    return np.concatenate([pair, 1 - pair.sum(1, keepdims=True)], axis=1).astype(np.float32)


def _nearest(points_P3: Array, normals_P3: Array, size: int) -> Layer:
    column, row = (np.floor(points_P3[:, axis]).astype(np.int64) for axis in (0, 1))
    shown = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    pixel, depth, normals_P3 = (row * size + column)[shown], points_P3[shown, 2], normals_P3[shown]
    nearest = np.full(size * size, _NOTHING_MM, np.float32)
    np.minimum.at(nearest, pixel, depth)
    hit = np.isfinite(nearest)
    winner = np.full(size * size, -1)
    (wins,) = np.nonzero(depth == nearest[pixel])
    winner[pixel[wins]] = wins
    normal_P3 = normals_P3[winner[hit]]
    normal_P3 = normal_P3 / np.maximum(np.linalg.norm(normal_P3, axis=1, keepdims=True), 1e-6)
    normal_P3 = normal_P3 * -np.sign(normal_P3[:, 2:] + 1e-12)  # towards the viewer
    light = np.array([_LIGHT[0], -_LIGHT[1], _LIGHT[2]], np.float32)
    diffuse = np.clip(normal_P3 @ (light / np.linalg.norm(light)), 0, 1)
    layers = [np.full(size * size, value, np.float32) for value in (_NOTHING_MM, 0, 0)]
    for layer, values in zip(layers, (depth[winner[hit]], 0.3 + 0.7 * diffuse, -normal_P3[:, 2]), strict=True):
        layer[hit] = values
    depth_HW, light_HW, facing_HW = (layer.reshape(size, size) for layer in layers)
    return Layer(depth_HW=depth_HW, light_HW=light_HW, facing_HW=facing_HW)


def blend(layers: Sequence[tuple[Layer, Sequence[float], Array]], background: Sequence[float], size: int) -> Array:
    """Return picture_HW3 in 0..1 of each (layer, colour, opacity_HW), far ones shining through near ones."""
    picture_HW3 = np.broadcast_to(np.asarray(background, np.float32), (size, size, 3)).copy()
    if not layers:
        return picture_HW3
    order_LHW = np.argsort(-np.stack([layer.depth_HW for layer, _, _ in layers]), axis=0, kind="stable")
    for place in range(len(layers)):
        for index, (layer, colour, opacity_HW) in enumerate(layers):
            here = (order_LHW[place] == index) & np.isfinite(layer.depth_HW)
            alpha = opacity_HW[here][:, None]
            shine = np.clip((layer.light_HW[here][:, None] - 0.9) * 2.5, 0, 0.25)
            lit = np.clip(np.asarray(colour, np.float32) * layer.light_HW[here][:, None] * 1.1 + shine, 0, 1)
            picture_HW3[here] = (1 - alpha) * picture_HW3[here] + alpha * lit
    return picture_HW3
