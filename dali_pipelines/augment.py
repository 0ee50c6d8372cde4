"""One small DALI function per augmentation, called inside the graph of graph.py.

Every function is a pure function of its inputs: the random numbers are drawn in sampling.py. `image` is float32 with
the modalities first, (M, D, H, W) or (M, H, W); `spatial` names its voxel axes, "DHW" or "HW". `if` on a graph value
works per sample: only the samples that were chosen pay. Reductions and factors stay broadcastable, (M, 1, 1, 1):
one expression over all modalities is one pass over the voxels.
"""

from collections.abc import Sequence
from typing import Any

from nvidia.dali import fn, math, types

Node = Any


def normalise(
    image: Node, scale: Node, offset: Node, *, modalities: int, integers: bool, skull_stripped: bool = True
) -> Node:
    """Stored intensities -> scale * image + offset where any modality is non-zero, exactly 0 elsewhere; float32.

    Where the scans are not skull-stripped, 0 is an intensity like any other, and nothing is left out.
    `image` (M, …) as stored; `scale`, `offset` (M,).
    """
    if not skull_stripped:
        return fn.stack(*[image[m] * scale[m] + offset[m] for m in range(modalities)], axis=0, axis_name="C")
    # Bits of integers are joined first: DALI compares in a wider type, at several times the cost of everything else.
    found = image[0] if integers else image[0] != 0
    for m in range(1, modalities):
        found = found | (image[m] if integers else image[m] != 0)
    mask = found != 0 if integers else found
    # Scalars of one modality at a time: twice as fast here as a broadcast over all.
    return fn.stack(*[(image[m] * scale[m] + offset[m]) * mask for m in range(modalities)], axis=0, axis_name="C")


def as_floats(image: Node) -> Node:
    """The same intensities as float32, for an interpolation that does not round."""
    return fn.cast(image, dtype=types.FLOAT)


def warp(block: Node, matrix: Node, size: tuple[int, ...], spatial: str, interpolation: Any) -> Node:
    """Rotation, scale and mirror in one interpolation; 0 from outside. `matrix`: geometry.dali_matrix."""
    # DALI warps channels-last only. Taken as frames of one channel each, modalities need no transposition.
    frames = fn.expand_dims(fn.reshape(block, layout=f"F{spatial}"), axes=[len(size) + 1], new_axis_names="C")
    warped = fn.warp_affine(frames, matrix=matrix, size=size, fill_value=0, interp_type=interpolation)
    return fn.reshape(fn.squeeze(warped, axes=[len(size) + 1]), layout=f"C{spatial}")


def zoom(block: Node, start: Node, end: Node, size: tuple[int, ...], spatial: str, interpolation: Any) -> Node:
    """Scale and mirror without rotation: each axis on its own, a tenth of a warp's work on a CPU.

    Shows the box from `start` to `end` (continuous places, z y x; end before start mirrors). Beyond its border the
    block repeats its outermost voxels, so a box that passes the case's border needs a block with one zero all round;
    for the nearest neighbour its rows must reach as far as the box (needed_box).
    """
    block = fn.reshape(block, layout=f"C{spatial}")
    return fn.resize(block, roi_start=start, roi_end=end, size=size, interp_type=interpolation, antialias=False)


def mirror(block: Node, axes: Node, spatial: str) -> Node:
    """Reverse the axes whose flag in `axes` (z, y, x or y, x) is set; image or label."""
    # Without a layout flip would take the block for frames and leave the depth alone.
    block = fn.reshape(block, layout=f"C{spatial}")
    if len(spatial) == 3:
        return fn.flip(block, depthwise=axes[0], vertical=axes[1], horizontal=axes[2])
    return fn.flip(block, vertical=axes[0], horizontal=axes[1])


def noise(image: Node, bank: Node, sigma: Node, anchor: Node, axes: Node, shape: tuple[int, ...], spatial: str) -> Node:
    """Add sigma (M,) * normal deviates: the bank's window of `shape` (M, …) at `anchor`, mirrored by `axes`."""
    extent = types.Constant(list(shape), dtype=types.INT32)
    window = fn.slice(bank, anchor, extent, axes=list(range(len(shape))))
    return image + mirror(window, axes, spatial) * _per_modality(sigma, spatial)


def blur(image: Node, chosen: Node, sigma: Node, spatial: str, *, modalities: int) -> Node:
    """Gaussian blur of the chosen modalities, sigma (M, axes) in voxels."""
    blurred = []
    for m in range(modalities):
        modality = fn.reshape(image[m : m + 1], layout=f"C{spatial}")
        if chosen[m]:
            modality = fn.gaussian_blur(modality, sigma=sigma[m])
        blurred.append(modality)
    return fn.cat(*blurred, axis=0)


def brightness(image: Node, factor: Node, spatial: str) -> Node:
    """Multiply each modality by its factor (M,)."""
    return image * _per_modality(factor, spatial)


def contrast(image: Node, factor: Node, spatial: str) -> Node:
    """Stretch each modality about its mean by its factor (M,), cut to the range it had."""
    mean, low, high = (_over_voxels(kind, image, spatial) for kind in ("mean", "min", "max"))
    factor = _per_modality(factor, spatial)
    return math.clamp(image * factor + (mean - mean * factor), low, high)


def low_resolution(
    image: Node, chosen: Node, shape: Node, size: tuple[int, ...], spatial: str, *, modalities: int
) -> Node:
    """Sample the chosen modalities on a coarser grid (nearest) of `shape` (M, axes) and interpolate back (linear)."""
    coarsened = []
    for m in range(modalities):
        modality = fn.reshape(image[m : m + 1], layout=f"C{spatial}")
        if chosen[m]:
            coarse = fn.resize(modality, size=shape[m], interp_type=types.INTERP_NN, antialias=False)
            modality = fn.resize(coarse, size=size, interp_type=types.INTERP_LINEAR, antialias=False)
        coarsened.append(modality)
    return fn.cat(*coarsened, axis=0)


def gamma(image: Node, exponent: Node, spatial: str, *, inverted: bool) -> Node:
    """Raise each modality, scaled to 0..1, to its exponent (M,); then give it back its mean and standard deviation.

    `inverted` does so to the negated image, which bends the bright end.
    """
    low, high = (_over_voxels(kind, image, spatial) for kind in ("min", "max"))
    # The small number keeps an empty patch, whose range is 0, from dividing by it; the maximum, rounding below 0.
    per_extent = _constant(1.0) / math.max(high - low, _constant(1e-7))
    place = (high - image) * per_extent if inverted else (image - low) * per_extent
    curved = math.fpow(math.max(place, _constant(0.0)), _per_modality(exponent, spatial))
    wanted_mean, mean = _over_voxels("mean", image, spatial), _over_voxels("mean", curved, spatial)
    wanted_deviation = _deviation(image, wanted_mean, spatial)
    factor = wanted_deviation / math.max(_deviation(curved, mean, spatial), _constant(1e-7))
    if inverted:
        factor = factor * _constant(-1.0)
    return curved * factor + (wanted_mean - mean * factor)


def regions(label: Node, labels_of_regions: Sequence[Sequence[int]]) -> Node:
    """Labels (1, …) -> the overlapping masks (R, …), uint8: one for each set of labels, in their order."""
    masks = [
        fn.lookup_table(label, keys=list(labels), values=[1.0] * len(labels), dtype=types.UINT8)
        for labels in labels_of_regions
    ]
    return fn.cat(*masks, axis=0)


def _per_modality(values: Node, spatial: str) -> Node:
    return fn.expand_dims(values, axes=list(range(1, len(spatial) + 1)))


def _over_voxels(kind: str, image: Node, spatial: str) -> Node:
    return getattr(fn.reductions, kind)(image, axes=list(range(1, len(spatial) + 1)), keep_dims=True)


def _deviation(image: Node, mean: Node, spatial: str) -> Node:
    return fn.reductions.std_dev(image, mean, axes=list(range(1, len(spatial) + 1)), keep_dims=True)


def _constant(value: float) -> Node:
    # A bare Python number would be taken for float64 and drag the image with it.
    return types.Constant(value, dtype=types.FLOAT)
