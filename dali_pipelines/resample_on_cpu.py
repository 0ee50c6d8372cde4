"""Where voxels come from, on a CPU: what augment.py's warp and zoom do, with NumPy.

A rotation needs the eight voxels around every place. Here some thousand places are worked out at a time, once for all
modalities and by instructions that take sixteen at once; DALI's warp goes voxel by voxel, modality by modality. Scale
without rotation goes axis by axis.

Voxels D H W z, y, x; places are continuous, voxel v's middle at v + 0.5. Beyond the block its outermost voxels are
repeated: those of a block that was cut at the case's border are zeros (geometry.needed_box).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Label = NDArray[np.uint8]

# Places worked on at a time: their neighbours and shares are 100 bytes a place, and have to stay in a core's cache.
_PLACES = 1 << 14


class Between(NamedTuple):
    """For each place along an axis the voxels it lies between, and the upper one's share."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    share: Image


def between(places: NDArray[np.floating[Any]], side: int) -> Between:
    """The neighbours of places along an axis of `side` voxels."""
    from_first = np.clip(places - 0.5, 0, side - 1)
    lower = from_first.astype(np.intp)
    return Between(lower, np.minimum(lower + 1, side - 1), (from_first - lower).astype(np.float32))


def interpolate(volume: Image, axes: Sequence[Between], out: Image) -> None:
    """Linear along each axis: `volume` (d, h, w) at these places of its axes, into `out` (D, H, W)."""
    of_z, of_y, of_x = axes
    share_of_y = of_y.share[:, None]
    for plane, lower, upper, share in zip(out, *of_z, strict=True):
        rows = _mix(volume[lower], volume[upper], share)
        rows = _mix(rows[of_y.lower], rows[of_y.upper], share_of_y)
        np.copyto(plane, _mix(rows.take(of_x.lower, axis=1), rows.take(of_x.upper, axis=1), of_x.share))


def _mix(lower: Image, upper: Image, share: Any) -> Image:
    """The upper one's share of the way from the lower one to it."""
    way: Image = upper - lower
    way *= share
    way += lower
    return way


def zoom(image: Image, label: Label, start: Any, end: Any, out: Image, out_label: Label) -> None:
    """Show the box from `start` to `end` of a block (M, d, h, w), label (d, h, w): linear, the label nearest."""
    box = np.array([start, end], float).T
    places = [
        first + (np.arange(side) + 0.5) * ((last - first) / side)
        for (first, last), side in zip(box, out_label.shape, strict=True)
    ]
    axes = [between(place, side) for place, side in zip(places, label.shape, strict=True)]
    for volume, shown in zip(image, out, strict=True):
        interpolate(volume, axes, shown)
    for axis, place in enumerate(places):
        nearest = np.clip(np.floor(place), 0, label.shape[axis] - 1).astype(np.intp)
        label = label.take(nearest, axis=axis)
    out_label[...] = label


def warp(image: Image, label: Label, matrix: NDArray[np.float32], out: Image, out_label: Label) -> None:
    """Show the block (M, d, h, w), label (d, h, w), through `matrix` (geometry.dali_matrix): linear, label nearest.

    Fastest where `image` is a view of voxels whose modalities lie together: a place's neighbours are then 8 pieces of
    memory and not 8 for each modality.
    """
    linear, shift = matrix[::-1, 2::-1].astype(float), matrix[::-1, 3].astype(float)
    z, y, x = np.meshgrid(*(np.arange(side) + 0.5 for side in out_label.shape), indexing="ij", sparse=True)
    rows = (linear[:, 0, None, None, None] * z + linear[:, 1, None, None, None] * y).reshape(3, -1) + shift[:, None]
    starts, steps = rows.astype(np.float32)[..., None], (linear[:, 2, None, None] * x.reshape(-1)).astype(np.float32)
    voxels, labels = np.moveaxis(image, 0, -1).reshape(-1, len(image)), label.reshape(-1)
    width = out_label.shape[-1]
    shown, shown_label = out.reshape(len(out), -1), out_label.reshape(-1)
    for first in range(0, rows.shape[1], max(1, _PLACES // width)):
        part = slice(first, first + max(1, _PLACES // width))
        places = (starts[:, part] + steps).reshape(3, -1)
        target = slice(first * width, first * width + places.shape[1])
        np.take(labels, _nearest(places, label.shape), out=shown_label[target], mode="clip")
        _mix_neighbours(voxels, label.shape, places, shown[:, target])


def _nearest(places: Image, sides: Sequence[int]) -> NDArray[np.intp]:
    """Numbers of the voxels that `places` (3, n) z y x lie in."""
    z, y, x = (np.clip(place, 0, side - 1).astype(np.int32) for place, side in zip(places, sides, strict=True))
    return ((z * sides[1] + y) * sides[2] + x).astype(np.intp)


def _mix_neighbours(voxels: Image, sides: Sequence[int], places: Image, out: Image) -> None:
    """Each place's eight neighbours by their shares, `voxels` (d * h * w, M), `places` (3, n) z y x, `out` (M, n)."""
    for place, side in zip(places, sides, strict=True):
        np.clip(place - np.float32(0.5), 0, side - 1, out=place)
    lower = np.floor(places)
    share_z, share_y, share_x = places - lower
    corner = _nearest(lower, sides)
    modalities, row, plane = voxels.shape[1], sides[2], sides[1] * sides[2]
    by_z, by_y = (np.repeat(share, modalities).reshape(-1, modalities) for share in (share_z, share_y))

    def pick(step: int) -> Image:
        # A neighbour behind the block has no share in any place: what is taken for it is of no account.
        return np.take(voxels, corner + step, axis=0, mode="clip")

    def mix_levels(step: int) -> Image:
        return _mix(pick(step), pick(step + plane), by_z) if sides[0] > 1 else pick(step)

    first, second = (_mix(mix_levels(step), mix_levels(step + row), by_y) for step in (0, 1))
    for lower_one, upper_one, shown in zip(first.T, second.T, out, strict=True):
        np.subtract(upper_one, lower_one, out=shown)
        shown *= share_x
        shown += lower_one
