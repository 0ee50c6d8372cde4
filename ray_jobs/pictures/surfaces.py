"""Surfaces of masks, and pictures of surfaces: a depth buffer in numpy, so that a view takes a fraction of a second.

Shapes: V vertices, F faces, R their rows of pixels, P pixels, x y z in millimetres in LPS; H W pixels of a picture, L
its layers.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from scoring.components import find_box

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
    inside_DHW = values_DHW > level
    if not inside_DHW.any():
        return None
    margin = step + int(np.ceil(3 * blur))
    box = find_box(inside_DHW, 0)
    padded = np.pad(values_DHW[box].astype(np.float32), margin)
    smooth = padded
    for axis in range(3):  # along each only what is still to be sampled along the next
        every = (slice(None),) * axis + (slice(None, None, step),)
        smooth = (ndimage.gaussian_filter1d(smooth, blur, axis=axis) if blur else smooth)[every]
    if smooth.max() <= level:
        smooth, step = padded, 1
    corners, faces, normals, _ = marching_cubes(smooth, level, spacing=tuple(step * mm for mm in spacing_mm))
    low = np.array([side.start for side in box])
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
    """Return what the camera sees: of the triangles that look at it, in the middle of each pixel the nearest."""
    axes = np.stack([camera.right, -camera.up, camera.forward])
    x_V, y_V, depth_V = axes @ (surface.vertices_V3 - camera.middle).T
    x_V, y_V = (along / camera.mm_per_pixel + camera.size / 2 for along in (x_V, y_V))
    x_3F, y_3F = (along.take(surface.faces_F3.T) for along in (x_V, y_V))
    # skimage winds triangles one way around, so those that look away have an area of the other sign.
    (front,) = np.nonzero(_area(x_3F[1:] - x_3F[0], y_3F[1:] - y_3F[0]) < 0)
    faces_3F, x_3F, y_3F = surface.faces_F3.T[:, front], x_3F[:, front], y_3F[:, front]
    face_P, row_P, column_P = _covered_pixels(x_3F, y_3F, camera.size)
    # A point of a triangle is its first corner and a share of each of the two sides from there.
    sides_x, sides_y, sides_depth = (along[1:] - along[0] for along in (x_3F, y_3F, depth_V.take(faces_3F)))
    area_F, right, down = _area(sides_x, sides_y), column_P + 0.5 - x_3F[0, face_P], row_P + 0.5 - y_3F[0, face_P]
    first, second = (
        ((right * along_y[face_P] - down * along_x[face_P]) / area[face_P]).clip(0, 1)
        for along_x, along_y, area in ((sides_x[1], sides_y[1], area_F), (sides_x[0], sides_y[0], -area_F))
    )
    depth_P = depth_V.take(faces_3F[0])[face_P] + first * sides_depth[0, face_P] + second * sides_depth[1, face_P]
    pixel_P = row_P * camera.size + column_P
    nearest = np.full(camera.size**2, _NOTHING_MM, np.float32)
    np.minimum.at(nearest, pixel_P, depth_P.astype(np.float32))
    (wins,) = np.nonzero(depth_P.astype(np.float32) == nearest[pixel_P])
    winner = np.zeros(camera.size**2, np.int64)
    winner[pixel_P[wins]] = wins
    winner = winner[np.isfinite(nearest)]
    shares = 1 - first[winner] - second[winner], first[winner], second[winner]
    normals_3V, corners_3P = axes @ surface.normals_V3.T, faces_3F.take(face_P[winner], axis=1)
    normal_3P = sum(normals_3V.take(at, axis=1) * share for at, share in zip(corners_3P, shares, strict=True))
    return _lit(nearest, normal_3P, camera.size)


def _area(sides_x: Array, sides_y: Array) -> Array:
    """Twice the area between two sides, signed by which of them is the left one."""
    area: Array = sides_x[0] * sides_y[1] - sides_x[1] * sides_y[0]
    return area


def _covered_pixels(x_3F: Array, y_3F: Array, size: int) -> tuple[NDArray[np.int64], ...]:
    """Return face, row and column of each pixel whose middle lies in a triangle of those corners.

    Sides are followed downwards, whichever triangle they belong to: a pixel between two neighbours is never in neither.
    """
    order = y_3F.argsort(axis=0)
    x_3F, y_3F = (np.take_along_axis(along, order, axis=0) for along in (x_3F, y_3F))
    face_R, row_R = _spread(y_3F[0], y_3F[2], size)
    middle_R = row_R + 0.5

    def cross(above: int, below: int) -> Array:
        height = y_3F[below] - y_3F[above]
        slope = (x_3F[below] - x_3F[above]) / np.where(height > 0, height, 1)
        column: Array = x_3F[above, face_R] + (middle_R - y_3F[above, face_R]) * slope[face_R]
        return column

    long_side, other_side = cross(0, 2), np.where(middle_R < y_3F[1, face_R], cross(0, 1), cross(1, 2))
    span_P, column_P = _spread(np.minimum(long_side, other_side), np.maximum(long_side, other_side), size)
    return face_R[span_P], row_R[span_P], column_P


def _spread(low_N: Array, high_N: Array, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for each pixel whose middle lies between low and high, the number of that pair, and the pixel."""
    first, end = (np.ceil(side - 0.5).clip(0, size).astype(np.int64) for side in (low_N, high_N))
    counts = end - first
    pair_P = np.repeat(np.arange(len(counts)), counts)
    return pair_P, np.arange(len(pair_P)) - np.repeat(counts.cumsum() - counts - first, counts)


def _lit(depth: Array, normal_3P: Array, size: int) -> Layer:
    """The layer of flat depths, with normals of the pixels that have one, in the camera's axes."""
    normal_3P = normal_3P / np.maximum(np.linalg.norm(normal_3P, axis=0), 1e-6)
    normal_3P = normal_3P * -np.sign(normal_3P[2] + 1e-12)  # towards the viewer
    light = np.array([_LIGHT[0], -_LIGHT[1], _LIGHT[2]], np.float32)
    diffuse = (light / np.linalg.norm(light) @ normal_3P).clip(0, 1)
    light_HW, facing_HW = np.zeros((2, size, size), np.float32)
    light_HW.ravel()[np.isfinite(depth)], facing_HW.ravel()[np.isfinite(depth)] = 0.3 + 0.7 * diffuse, -normal_3P[2]
    return Layer(depth_HW=depth.reshape(size, size), light_HW=light_HW, facing_HW=facing_HW)


def blend(layers: Sequence[tuple[Layer, Sequence[float], Array]], background: Sequence[float], size: int) -> Array:
    """Return picture_HW3 in 0..1 of each (layer, colour, opacity_HW), far ones shining through near ones."""
    picture_3P = np.repeat(np.asarray(background, np.float32)[:, None], size * size, axis=1)
    depth_LP = np.stack([layer.depth_HW.ravel() for layer, _, _ in layers] or [np.full(size * size, _NOTHING_MM)])
    layers_P = np.isfinite(depth_LP).sum(axis=0)
    # Most pixels see one layer alone; the others' are sorted by depth.
    (one,), (several,) = np.nonzero(layers_P == 1), np.nonzero(layers_P > 1)
    first_P, order_LP = depth_LP[:, one].argmin(axis=0), np.argsort(-depth_LP[:, several], axis=0, kind="stable")
    for pixels, seen_P in [(one, first_P), *((several, order_P) for order_P in order_LP)]:
        for index, (layer, colour, opacity_HW) in enumerate(layers):
            here = pixels[seen_P == index]
            here = here[np.isfinite(depth_LP[index, here])]
            light, alpha = layer.light_HW.ravel()[here], opacity_HW.ravel()[here]
            shine = np.clip((light - 0.9) * 2.5, 0, 0.25)
            for picture_P, bright in zip(picture_3P, colour, strict=True):
                lit = np.clip(bright * light * 1.1 + shine, 0, 1)
                picture_P[here] = (1 - alpha) * picture_P[here] + alpha * lit
    return picture_3P.T.reshape(size, size, 3)
