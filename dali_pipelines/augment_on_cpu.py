"""The operations of augment.py for a CPU: the same names, the same results to rounding, with NumPy and in place.

`image` is float32 with the modalities first, (M, D, H, W) or (M, H, W), in one piece; it is changed and returned. All
is done by portions that stay in a core's cache, modality after modality. tests/dali_pipelines/
test_on_cpu.py holds each to DALI's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dali_pipelines.resample_on_cpu import between, interpolate

Image = NDArray[np.float32]
Given = NDArray[np.generic]

# Voxels worked on at a time: with the results in between, half a core's second-level cache of 1 to 2 MiB.
_PORTION = 1 << 15

# Gaussian windows reach this many standard deviations, as DALI's do.
_REACH = 3


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of one modality's voxels."""

    low: float
    high: float
    mean: float
    deviation: float


def normalise(image: Given, scale: Given, offset: Given, out: Image, *, skull_stripped: bool = True) -> Image:
    """Stored intensities -> scale * image + offset, into `out`; of brains exactly 0 where all modalities are 0.

    `image` (M, …) as stored, which may be a view that runs backwards; it may be `out` itself.
    """
    for rows in _slabs(out.shape[1:]):
        stored = image[:, rows]
        inside = _any_found(stored) if skull_stripped else np.float32(1)
        for m, one in enumerate(out[:, rows]):
            scaled = np.multiply(stored[m], scale[m], dtype=np.float32)
            scaled += offset[m]
            np.multiply(scaled, inside, out=one)
    return out


def noise(image: Image, bank: Image, sigma: Given, anchor: Given, axes: Given, shape: Any, spatial: str) -> Image:
    """Add sigma (M,) * normal deviates: the bank's window of `shape` (M, …) at `anchor`, mirrored by `axes`."""
    window = bank[tuple(slice(start, start + side) for start, side in zip(anchor, shape, strict=True))]
    window = mirrored(window, axes)
    for one, deviates, deviation in zip(image, window, sigma, strict=True):
        for rows in _slabs(one.shape):
            one[rows] += deviates[rows] * deviation
    return image


def mirrored(block: NDArray[Any], axes: Given) -> NDArray[Any]:
    """A view with the axes reversed whose flag in `axes` (z, y, x or y, x) is set; the first axis is no voxels'."""
    return np.flip(block, tuple(1 + int(axis) for axis in np.flatnonzero(axes)))


def blur(image: Image, chosen: Given, sigma: Given, spatial: str, *, modalities: int) -> Image:
    """Gaussian blur of the chosen modalities, sigma (M, axes) in voxels."""
    for m in np.flatnonzero(chosen):
        volume = image[m] if image.ndim == 4 else image[m][None]
        widths = sigma[m] if image.ndim == 4 else (0.0, *sigma[m])
        _filter(volume, [_window(float(width)) for width in widths])
    return image


def brightness(image: Image, factor: Given, spatial: str) -> Image:
    """Multiply each modality by its factor (M,)."""
    for one, by in zip(image, factor, strict=True):
        one *= by
    return image


def contrast(image: Image, factor: Given, spatial: str) -> Image:
    """Stretch each modality about its mean by its factor (M,), cut to the range it had."""
    for one, by in zip(image, factor.astype(np.float32), strict=True):
        was = _statistics(one)
        low, high, shift = (np.float32(value) for value in (was.low, was.high, was.mean - was.mean * float(by)))
        for part in _portions(one):
            part *= by
            part += shift
            np.minimum(np.maximum(part, low, out=part), high, out=part)
    return image


def low_resolution(
    image: Image, chosen: Given, shape: Given, size: tuple[int, ...], spatial: str, *, modalities: int
) -> Image:
    """Sample the chosen modalities on a coarser grid (nearest) of `shape` (M, axes) and interpolate back (linear)."""
    for m in np.flatnonzero(chosen):
        coarse, volume = image[m], image[m] if image.ndim == 4 else image[m][None]
        sides = [int(side) for side in shape[m]]
        for axis, (side, voxels) in enumerate(zip(sides, size, strict=True)):
            nearest = np.floor((np.arange(side) + 0.5) * voxels / side).astype(np.intp)
            coarse = coarse.take(nearest, axis=axis)
        coarse = coarse if image.ndim == 4 else coarse[None]
        places = [(np.arange(n) + 0.5) * side / n for n, side in zip(volume.shape, coarse.shape, strict=True)]
        interpolate(coarse, [between(place, side) for place, side in zip(places, coarse.shape, strict=True)], volume)
    return image


def gamma(image: Image, exponent: Given, spatial: str, *, inverted: bool) -> Image:
    """Raise each modality, scaled to 0..1, to its exponent (M,); then give it back its mean and standard deviation.

    `inverted` does so to the negated image, which bends the bright end.
    """
    for one, power in zip(image, exponent.astype(np.float32), strict=True):
        was = _statistics(one)
        # The small number keeps an empty patch, whose range is 0, from dividing by it; the maximum, rounding below 0.
        per_extent = np.float32(1 / max(was.high - was.low, 1e-7))
        low, high = np.float32(was.low), np.float32(was.high)
        for part in _portions(one):
            if inverted:
                np.subtract(high, part, out=part)
            else:
                part -= low
            part *= per_extent
            np.power(np.maximum(part, np.float32(0), out=part), power, out=part)
        now = _statistics(one)
        factor = was.deviation / max(now.deviation, 1e-7) * (-1 if inverted else 1)
        shift = np.float32(was.mean - now.mean * factor)
        for part in _portions(one):
            part *= np.float32(factor)
            part += shift
    return image


def regions(label: NDArray[np.uint8], labels_of_regions: Sequence[Sequence[int]], out: NDArray[np.uint8]) -> None:
    """Labels (…) -> the overlapping masks (R, …), into `out`: one for each set of labels, in their order."""
    for rows in _slabs(label.shape):
        part = label[rows]
        is_of = {value: part == value for value in {value for labels in labels_of_regions for value in labels}}
        for mask, labels in zip(out[:, rows], labels_of_regions, strict=True):
            mask[...] = 0
            for value in labels:
                mask |= is_of[value]


def _any_found(stored: Given) -> NDArray[np.bool_]:
    """Where any modality is not 0."""
    if stored.dtype.kind == "i":  # bits of integers are joined first, which is a third of the work
        joined: NDArray[np.bool_] = np.bitwise_or.reduce(stored, axis=0) != 0
        return joined
    found: NDArray[np.bool_] = (stored != 0).any(axis=0)
    return found


def _statistics(one: Image) -> Statistics:
    """In double precision over the portions, always in this order: the same bits whatever the threads."""
    low, high, total, squares = np.inf, -np.inf, 0.0, 0.0
    square = np.empty(_PORTION, np.float32)
    for part in _portions(one):
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        total += float(part.sum())
        squares += float(np.multiply(part, part, out=square[: part.size]).sum())
    mean = total / one.size
    return Statistics(low=low, high=high, mean=mean, deviation=max(squares / one.size - mean * mean, 0.0) ** 0.5)


def _window(sigma: float) -> list[np.float32]:
    """The middle and one side of a Gaussian's weights, whose sum over both sides is 1."""
    if not sigma:
        return [np.float32(1)]
    weights = np.exp(-0.5 * (np.arange(np.ceil(_REACH * sigma) + 1) / sigma) ** 2)
    return list((weights / (2 * weights.sum() - weights[0])).astype(np.float32))


def _filter(volume: Image, windows: Sequence[Sequence[np.float32]]) -> None:
    """Convolve (D, H, W) with a symmetric window along each axis, in place, plane by plane; mirrored at the border."""
    (depth, height, width), margins = volume.shape, [len(window) - 1 for window in windows]
    places = [_mirrored_places(side, margin) for side, margin in zip(volume.shape, margins, strict=True)]
    levels, plane = volume[places[0]].reshape(-1), height * width
    both_HW, sum_HW = np.empty((2, height * (width + 2 * margins[2])), np.float32)
    for level in range(depth):
        shown = sum_HW[:plane]
        _convolve(levels, (level + margins[0]) * plane, plane, windows[0], shown, both_HW)
        rows = shown.reshape(height, width)[places[1]].reshape(-1)
        _convolve(rows, margins[1] * width, width, windows[1], shown, both_HW)
        # Rows with their borders, one after the other: what is computed between two of them is cut off.
        rows = shown.reshape(height, width).take(places[2], axis=1).reshape(-1)
        _convolve(rows, margins[2], 1, windows[2], sum_HW[: rows.size - 2 * margins[2]], both_HW)
        volume[level] = sum_HW[: rows.size].reshape(height, -1)[:, :width]


def _convolve(flat: Image, first: int, stride: int, window: Sequence[np.float32], out: Image, both: Image) -> None:
    """The window's sums for the voxels from `first` on, whose neighbours lie `stride` voxels apart, into `out`."""
    size = out.size
    np.multiply(flat[first : first + size], window[0], out=out)
    for number, weight in enumerate(window[1:], start=1):
        before, after = first - number * stride, first + number * stride
        np.add(flat[before : before + size], flat[after : after + size], out=both[:size])
        both[:size] *= weight
        out += both[:size]


def _mirrored_places(side: int, margin: int) -> NDArray[np.intp]:
    """Voxels -margin to side + margin, mirrored at the middles of the outermost."""
    period = max(2 * (side - 1), 1)
    places = np.arange(-margin, side + margin) % period
    return np.minimum(places, period - places) if side > 1 else places * 0


def _slabs(shape: Sequence[int]) -> Iterator[slice]:
    """Pieces of the first axis of an array of this shape, a portion each."""
    step = max(1, _PORTION // max(1, int(np.prod(shape[1:]))))
    return (slice(start, start + step) for start in range(0, shape[0], step))


def _portions(one: Image) -> Iterator[Image]:
    """All voxels, a portion after the other, as views."""
    flat = one.reshape(-1)
    return (flat[start : start + _PORTION] for start in range(0, flat.size, _PORTION))
