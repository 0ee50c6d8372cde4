"""One affine map a sample: rotation, scale and mirror together, and the box of voxels it needs.

Coordinates are continuous, (z, y, x), with the origin at the corner of voxel 0: voxel v has its centre at v + 0.5.
A map sends a place in the patch to the place in the case that it shows: source = centre + linear @ (place - patch / 2).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dali_pipelines.augmentation import AugmentationConfig

Floats = NDArray[np.float64]

# Linear interpolation reads the voxel on either side of a place.
INTERPOLATION_MARGIN = 1


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What was drawn for one sample: `linear` (3, 3) z, y, x; `mirror` three flags, already part of `linear`."""

    rotates: bool
    scales: bool
    linear: Floats
    mirror: tuple[bool, bool, bool]


def draw_geometry(rng: np.random.Generator, config: AugmentationConfig, *, dimensions: int) -> Geometry:
    """Draw a rotation, a scale and mirrored axes; the same count of numbers whatever is chosen."""
    rotates, scales = rng.random(2) < (config.rotation_probability, config.scale_probability)
    angles = np.radians(rng.uniform(*config.rotation_degrees, size=3))
    scale = rng.uniform(*config.scale_range)
    mirror = rng.random(3) < config.mirror_probability
    in_plane = np.array([dimensions == 3, True, True])
    # In 2-D only the rotation about z and the scale of y and x stay within the slice.
    angles = angles * (np.array([1, 1, 1]) if dimensions == 3 else np.array([1, 0, 0])) * rotates
    factors = np.where(in_plane & scales, scale, 1.0)
    mirror = mirror & in_plane
    linear = rotation(angles) @ np.diag(factors) @ np.diag(np.where(mirror, -1.0, 1.0))
    flags = (bool(mirror[0]), bool(mirror[1]), bool(mirror[2]))
    return Geometry(rotates=bool(rotates), scales=bool(scales), linear=linear, mirror=flags)


def rotation(angles: Floats) -> Floats:
    """Rotation matrix in (z, y, x) for `angles` in radians about z, y and x, applied in the order x, y, z."""
    matrices = []
    for axis, angle in enumerate(angles):
        first, second = [other for other in range(3) if other != axis]
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
        matrices.append(matrix)
    product: Floats = matrices[0] @ matrices[1] @ matrices[2]
    return product


def place_in_patch(linear: Floats, centre: Floats, patch_shape: Floats, source: Floats) -> Floats:
    """Where in the patch the case's place `source` is shown."""
    place: Floats = patch_shape / 2 + np.linalg.solve(linear, source - centre)
    return place


def needed_box(
    linear: Floats, centre: Floats, patch_shape: Floats, case_shape: Floats, *, whole_rows: bool
) -> tuple[Floats, Floats]:
    """Start and stop of the voxels that the map reads, cut to the case and one voxel of the zeros around it.

    whole_rows: not cut along x, as a zoom wants it. The nearest neighbour of DALI 2.4 on a CPU takes what it seeks
    beyond a row's end from other rows, or from behind the block, where the linear interpolation repeats the last voxel.
    """
    half = np.abs(linear) @ (patch_shape / 2)
    low, high = np.full(3, -1.0), case_shape + 1
    if whole_rows:
        low[2], high[2] = -np.inf, np.inf
    start = np.clip(np.floor(centre - half) - INTERPOLATION_MARGIN, low, high - 1)
    stop = np.clip(np.ceil(centre + half) + INTERPOLATION_MARGIN, start + 1, high)
    return start, stop


def shown_box(linear: Floats, centre: Floats, patch_shape: Floats, origin: Floats) -> NDArray[np.float32]:
    """The map of a scale and a mirror alone: where in the read block the patch starts and ends, (2, 3) z, y, x."""
    half = np.diag(linear) * (patch_shape / 2)
    return np.stack([centre - half - origin, centre + half - origin]).astype(np.float32)


def dali_matrix(linear: Floats, centre: Floats, patch_shape: Floats, origin: Floats) -> NDArray[np.float32]:
    """The map as DALI's warp_affine wants it: (3, 4), destination to source, rows and columns x, y, z.

    `origin` is the case's voxel that the read block starts with.
    """
    offset = centre - linear @ (patch_shape / 2) - origin
    matrix = np.concatenate([linear[::-1, ::-1], offset[::-1, None]], axis=1)
    return matrix.astype(np.float32)
