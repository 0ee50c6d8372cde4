"""The surface of a mask as elements that have an area: the programs of 2023 to 2025 weigh HD95 by it.

Written from the description of DeepMind's surface-distance (S. Nikolov et al. 2018, arXiv:1809.04430): every corner at
which eight voxels meet, some inside and some outside, is one element; its area is that of the surface which marching
cubes (Lorensen and Cline 1987) draw between the eight. Its table of areas is made here from rules:
edges of the cube with one end inside are cut in the middle; on a face with four cuts the inside corners stay apart;
more than four corners inside are drawn as their opposite; each closed line of cuts is filled with the triangles that
have the largest area together where voxels are cubes.
Letters in names: D H W voxels z y x.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from scoring.components import Mask, Numbers
from scoring.surface import Surface

Corner = tuple[int, int, int]
Line = tuple[Corner, ...]
Normal = tuple[float, float, float]

# Bit b of a code is corner b, as (D, H, W).
CORNERS: tuple[Corner, ...] = tuple((d, h, w) for d in (0, 1) for h in (0, 1) for w in (0, 1))


def surface_elements(mask_DHW: Mask, numbers_DHW: Numbers, *, spacing_mm: Sequence[float]) -> Surface:
    """The elements of a mask's surface; each belongs to the component of the voxels around it."""
    mask, numbers = np.pad(mask_DHW, 1), np.pad(numbers_DHW, 1)
    around = [
        tuple(slice(one, length - 1 + one) for one, length in zip(corner, mask.shape, strict=True))
        for corner in CORNERS
    ]
    codes = np.zeros([length - 1 for length in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(around):
        codes |= mask[corner].view(np.uint8) << np.uint8(bit)
    points = np.nonzero((codes != 0) & (codes != 255))
    # All voxels of the eight that are inside touch each other, so the highest number is theirs.
    component = np.max([numbers[corner][points] for corner in around], axis=0)
    areas = areas_of_codes(tuple(spacing_mm))[codes[points]]
    return Surface(shape=codes.shape, points=np.stack(points, axis=1), weights=areas, component=component)


@lru_cache
def areas_of_codes(spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """The area in mm² of each of the 256 ways in which eight voxels are inside or outside."""
    depth, height, width = spacing_mm
    return np.array(
        [
            sum(math.hypot(d * height * width, h * depth * width, w * depth * height) for d, h, w in _normals(code))
            for code in range(256)
        ]
    )


@lru_cache
def _normals(code: int) -> tuple[Normal, ...]:
    """The normals of a code's triangles where voxels are cubes of side 1; a normal is as long as its area.

    The largest come first, so that their sum at 1 mm has every bit of the published table: whether 95 % of the area are
    reached hangs on the last one.
    """
    if code.bit_count() > 4:
        return _normals(255 - code)
    inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
    normals: list[Normal] = []
    for line in _closed_lines(inside):
        fillings = ([_normal(*triangle) for triangle in triangles] for triangles in _fillings(line))
        normals += max(fillings, key=lambda filling: sum(math.hypot(*normal) for normal in filling))
    return tuple(sorted(normals, key=lambda normal: -math.hypot(*normal)))


def _closed_lines(inside: set[Corner]) -> list[Line]:
    """The lines along which the surface meets the cube's faces, each a ring of cuts (in half edges)."""
    joined: dict[Corner, list[Corner]] = {}
    for axis, side in product(range(3), (0, 1)):
        face = [_corner(axis, side, *others) for others in ((0, 0), (0, 1), (1, 1), (1, 0))]
        cuts = [_between(face[at], face[(at + 1) % 4]) for at in range(4)]
        # Where a corner is inside and its two neighbours on the face are not, the line goes around it.
        alone = [at for at in range(4) if face[at] in inside and not {face[at - 1], face[(at + 1) % 4]} & inside]
        crossed = [at for at in range(4) if (face[at] in inside) != (face[(at + 1) % 4] in inside)]
        pairs = [(at - 1, at) for at in alone] if len(crossed) == 4 else [crossed] if crossed else []
        for one, other in pairs:
            joined.setdefault(cuts[one], []).append(cuts[other])
            joined.setdefault(cuts[other], []).append(cuts[one])
    lines = []
    while joined:
        line = [next(iter(joined))]
        while following := [cut for cut in joined.pop(line[-1]) if cut in joined]:
            line.append(following[0])
        lines.append(tuple(line))
    return lines


def _corner(axis: int, side: int, one: int, other: int) -> Corner:
    """The corner of a face at that side of an axis, by its places along the other two axes."""
    corner = [one, other]
    corner.insert(axis, side)
    return corner[0], corner[1], corner[2]


def _between(one: Corner, other: Corner) -> Corner:
    """The middle of an edge, in half edges."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _fillings(line: Line) -> Iterator[list[Line]]:
    """Every way to fill a ring with triangles between its points."""
    if len(line) < 3:
        yield []
        return
    for middle in range(1, len(line) - 1):
        for before, behind in product(_fillings(line[: middle + 1]), _fillings(line[middle:])):
            yield [*before, (line[0], line[middle], line[-1]), *behind]


def _normal(*triangle: Corner) -> Normal:
    one, two, three = triangle
    (a, b, c), (d, e, f) = (
        [(end - start) / 2 for end, start in zip(other, one, strict=True)] for other in (two, three)
    )
    return abs(b * f - c * e) / 2, abs(c * d - a * f) / 2, abs(a * e - b * d) / 2
