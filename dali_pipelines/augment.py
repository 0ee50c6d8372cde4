"""One small DALI function per augmentation, called inside the graphs of patches.py and slices.py.

Every function is a pure function of its inputs: the random numbers are drawn in sampling.py. `image` is float32 with
the modalities first, (M, D, H, W) or (M, H, W); `spatial` names its voxel axes, "DHW" or "HW". `if` on a graph value
works per sample: only the samples that were chosen pay.
"""

from typing import Any

from nvidia.dali import fn, math, types

from storage.labels import MODALITIES, REGION_LABELS, REGIONS

Node = Any
_MODALITIES = range(len(MODALITIES))


def normalise(image: Node, scale: Node, offset: Node) -> Node:
    """Stored integers -> scale * image + offset where any modality is non-zero, exactly 0 elsewhere; float32."""
    found = image[0] != 0
    for modality in _MODALITIES[1:]:
        found = found | (image[modality] != 0)
    mask = fn.cast(found, dtype=types.FLOAT)
    # One expression a modality: DALI fuses it into one pass, and scalars are twice as fast as a broadcast tensor.
    return fn.stack(*[(image[m] * scale[m] + offset[m]) * mask for m in _MODALITIES], axis=0, axis_name="C")


def warp_image(image: Node, matrix: Node, size: tuple[int, ...], spatial: str) -> Node:
    """Rotation, scale and mirror in one linear interpolation; 0 from outside. Modalities travel as frames."""
    return _warp(image, matrix, size, spatial, types.INTERP_LINEAR)


def warp_label(label: Node, matrix: Node, size: tuple[int, ...], spatial: str) -> Node:
    """The image's map, on labels (1, D, H, W): nearest neighbour."""
    return _warp(label, matrix, size, spatial, types.INTERP_NN)


def mirror(block: Node, axes: Node, spatial: str) -> Node:
    """Reverse the axes whose flag in `axes` (z, y, x or y, x) is set; image or label."""
    # Without a layout flip would take the block for frames and leave the depth alone.
    block = fn.reshape(block, layout=f"C{spatial}")
    if len(spatial) == 3:
        return fn.flip(block, depthwise=axes[0], vertical=axes[1], horizontal=axes[2])
    return fn.flip(block, vertical=axes[0], horizontal=axes[1])


def noise(image: Node, bank: Node, sigma: Node, anchor: Node, axes: Node, size: tuple[int, ...], spatial: str) -> Node:
    """Add sigma * normal deviates, from the bank's window at `anchor`, mirrored by `axes`."""
    shape = types.Constant([len(MODALITIES), *size], dtype=types.INT32)
    window = fn.slice(bank, anchor, shape, axes=list(range(len(size) + 1)))
    return image + mirror(window, axes, spatial) * sigma


def blur(image: Node, chosen: Node, sigma: Node, spatial: str) -> Node:
    """Gaussian blur of the chosen modalities, sigma (M, axes) in voxels."""
    modalities = []
    for m in _MODALITIES:
        modality = fn.reshape(image[m : m + 1], layout=f"C{spatial}")
        if chosen[m]:
            modality = fn.gaussian_blur(modality, sigma=sigma[m])
        modalities.append(modality)
    return fn.cat(*modalities, axis=0)


def brightness(image: Node, factor: Node) -> Node:
    """Multiply each modality by its factor (M,)."""
    return fn.stack(*[image[m] * factor[m] for m in _MODALITIES], axis=0, axis_name="C")


def contrast(image: Node, factor: Node) -> Node:
    """Stretch each modality about its mean by its factor (M,), cut to the range it had."""
    modalities = []
    for m in _MODALITIES:
        modality = image[m]
        mean = fn.reductions.mean(modality)
        stretched = (modality - mean) * factor[m] + mean
        modalities.append(math.clamp(stretched, fn.reductions.min(modality), fn.reductions.max(modality)))
    return fn.stack(*modalities, axis=0, axis_name="C")


def low_resolution(image: Node, chosen: Node, shape: Node, size: tuple[int, ...], spatial: str) -> Node:
    """Sample the chosen modalities on a coarser grid (nearest) of `shape` (M, axes) and interpolate back (linear)."""
    modalities = []
    for m in _MODALITIES:
        modality = fn.reshape(image[m : m + 1], layout=f"C{spatial}")
        if chosen[m]:
            coarse = fn.resize(modality, size=shape[m], interp_type=types.INTERP_NN, antialias=False)
            modality = fn.resize(coarse, size=size, interp_type=types.INTERP_LINEAR, antialias=False)
        modalities.append(modality)
    return fn.cat(*modalities, axis=0)


def gamma(image: Node, exponent: Node) -> Node:
    """Raise each modality, scaled to 0..1, to its exponent (M,); then restore its mean and standard deviation."""
    modalities = []
    for m in _MODALITIES:
        modality = image[m]
        low = fn.reductions.min(modality)
        # The small number keeps an empty patch, whose range is 0, from dividing by it.
        extent = math.max(fn.reductions.max(modality) - low, types.Constant(1e-7, types.FLOAT))
        curved = math.fpow(math.max((modality - low) / extent, types.Constant(0.0, types.FLOAT)), exponent[m])
        modalities.append(_with_statistics_of(modality, curved))
    return fn.stack(*modalities, axis=0, axis_name="C")


def inverted_gamma(image: Node, exponent: Node) -> Node:
    """`gamma` of the negated image: it bends the bright end."""
    minus = types.Constant(-1.0, types.FLOAT)
    return gamma(image * minus, exponent) * minus


def regions(label: Node) -> Node:
    """Labels (1, …) -> the overlapping masks in REGIONS order (R, …), uint8."""
    masks = []
    for region in REGIONS:
        labels = list(REGION_LABELS[region])
        masks.append(fn.lookup_table(label, keys=labels, values=[1.0] * len(labels), dtype=types.UINT8))
    return fn.cat(*masks, axis=0)


def _with_statistics_of(wanted: Node, block: Node) -> Node:
    wanted_mean, mean = fn.reductions.mean(wanted), fn.reductions.mean(block)
    deviation = math.max(fn.reductions.std_dev(block, mean), types.Constant(1e-7, types.FLOAT))
    factor = fn.reductions.std_dev(wanted, wanted_mean) / deviation
    return (block - mean) * factor + wanted_mean


def _warp(block: Node, matrix: Node, size: tuple[int, ...], spatial: str, interpolation: Any) -> Node:
    # DALI warps channels-last only. Taken as frames of one channel each, modalities need no transposition.
    frames = fn.expand_dims(fn.reshape(block, layout=f"F{spatial}"), axes=[len(size) + 1], new_axis_names="C")
    warped = fn.warp_affine(frames, matrix=matrix, size=size, fill_value=0, interp_type=interpolation)
    return fn.reshape(fn.squeeze(warped, axes=[len(size) + 1]), layout=f"C{spatial}")
