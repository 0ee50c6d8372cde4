"""A patch cut from a case's arrays: the origin may be negative, the end may lie outside; what is outside is 0.

Shapes: M modality, D H W voxels z y x of the stored grid.
"""

import numpy as np

from storage.cases.info import CaseArrays, Shape


def clip_patch(origin: Shape, shape: Shape, stored: Shape) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What of a patch lies inside the stored grid: slices of the grid, and the same voxels' slices of the patch."""
    inside, target = [], []
    for start, side, limit in zip(origin, shape, stored, strict=True):
        low = max(start, 0)
        high = max(min(start + side, limit), low)
        inside.append(slice(low, high))
        target.append(slice(low - start, high - start))
    return tuple(inside), tuple(target)


def place_patch(inner: CaseArrays, target: tuple[slice, ...], shape: Shape) -> CaseArrays:
    """The inner part of a patch, set into zeros of the patch's own shape; always fresh arrays."""
    image_MDHW, label_DHW = inner
    image = np.zeros((image_MDHW.shape[0], *shape), dtype=image_MDHW.dtype)
    image[(slice(None), *target)] = image_MDHW
    if label_DHW is None:
        return CaseArrays(image, None)
    label = np.zeros(shape, dtype=np.uint8)
    label[target] = label_DHW
    return CaseArrays(image, label)


def cut_patch(arrays: CaseArrays, origin: Shape, shape: Shape) -> CaseArrays:
    """The patch of `shape` at `origin` (z y x), copied out of a whole case."""
    stored = arrays.image_MDHW.shape[1:]
    inside, target = clip_patch(origin, shape, (stored[0], stored[1], stored[2]))
    label = None if arrays.label_DHW is None else arrays.label_DHW[inside]
    return place_patch(CaseArrays(arrays.image_MDHW[(slice(None), *inside)], label), target, shape)
