"""The synthetic heads of phantom.py: anatomy, and what each modality shows of it.

A skull-stripped head is a brain on zeros; a whole one has skull and scalp around it, and air that is noise. Contrasts
follow what each modality shows of each tissue; a bias field, noise, bright vessels on t1ce and bright ventricle borders
on FLAIR keep a plain threshold from finding the tumour.

Shapes: XYZ as NIfTI stores them; M modalities of the task; T tissues. Lengths are in units of 2 mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.labels.conventions import (
    CYSTIC_COMPONENT,
    EDEMA,
    ENHANCING,
    GROSS_TUMOUR_VOLUME,
    MODALITIES,
    NECROTIC_CORE,
    NON_ENHANCING_TUMOUR,
    RESECTION_CAVITY,
)

Array = NDArray[np.float32]
Position = list[Array]  # of each voxel along x, y and z: three arrays, each with one side only

UNIT_MM = 2.0
EXTENT_MM = (240.0, 240.0, 156.0)
WHITE_LEVEL = 600.0  # int16 value of healthy white matter on t1
_SKULL, _SCALP = 0.07, 0.15  # how far they reach from the brain, in parts of its radius

# Signal of each tissue relative to white matter on t1, in the order of MODALITIES: flair, t1, t1ce, t2.
# Tumour contrasts: Menze et al. 2015, "The Multimodal Brain Tumor Image Segmentation Benchmark", section III.
SIGNAL: dict[str, tuple[float, float, float, float]] = {
    "white": (0.80, 1.00, 1.00, 0.75),
    "grey": (0.98, 0.78, 0.80, 1.00),
    "fluid": (0.32, 0.35, 0.36, 1.65),
    "vessel": (0.60, 0.70, 1.45, 0.60),
    "border": (1.25, 0.88, 0.90, 1.10),  # ventricle borders of older subjects: bright on FLAIR, not a tumour
    "bone": (0.08, 0.10, 0.10, 0.08),
    "scalp": (0.75, 1.20, 1.30, 0.85),
    "air": (0.00, 0.00, 0.00, 0.00),
}
TUMOUR_SIGNAL: dict[int, tuple[float, float, float, float]] = {  # by stored label
    EDEMA: (1.28, 0.78, 0.79, 1.33),
    NECROTIC_CORE: (0.92, 0.52, 0.56, 1.45),
    ENHANCING: (1.15, 0.78, 1.38, 1.12),
    RESECTION_CAVITY: (0.34, 0.38, 0.40, 1.60),
    NON_ENHANCING_TUMOUR: (1.20, 0.70, 0.72, 1.28),
    CYSTIC_COMPONENT: (0.45, 0.45, 0.47, 1.75),
    GROSS_TUMOUR_VOLUME: (1.00, 0.88, 1.32, 0.95),
}


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where the brain lies on a grid: `depth` is 1 in its middle, 0 on its surface and negative outside it."""

    shape_XYZ: tuple[int, ...]
    position: Position
    brain_axes: NDArray[np.float64]
    depth: Array

    @property
    def brain(self) -> NDArray[np.bool_]:
        return self.depth > 0


def draw_head(rng: np.random.Generator, spacing_mm: Sequence[float]) -> Head:
    """A head of another size each time, in the middle of a grid with voxels of these sides."""
    shape = tuple(round(extent / side) for extent, side in zip(EXTENT_MM, spacing_mm, strict=True))
    half = np.array(shape) / 2
    axes = [
        (np.arange(n, dtype=np.float32) - h) * (side / UNIT_MM)
        for n, h, side in zip(shape, half, spacing_mm, strict=True)
    ]
    position: Position = list(np.meshgrid(*axes, indexing="ij", sparse=True))  # from the middle
    brain_axes = np.array([35.0, 43.0, 31.0]) * rng.uniform(0.93, 1.05, 3)
    depth = 1 - ellipsoid(position, np.zeros(3), brain_axes) + 0.05 * smooth_field(rng, 7, shape)
    return Head(shape_XYZ=shape, position=position, brain_axes=brain_axes, depth=depth)


def draw_anatomy(rng: np.random.Generator, head: Head, *, skull_stripped: bool) -> NDArray[np.intp]:
    """Each voxel's tissue, an index into SIGNAL: grey rind, white matter, ventricles, vessels; skull, scalp and air."""
    index = {name: i for i, name in enumerate(SIGNAL)}
    position, depth = head.position, head.depth
    folds = 0.5 * smooth_field(rng, 16, head.shape_XYZ)
    tissue = np.where(depth < 0.17 * (1 + folds), index["grey"], index["white"])
    for side in (-1, 1):
        middle = np.array([side * rng.uniform(6, 8), rng.uniform(-4, 4), rng.uniform(0, 5)])
        distance = ellipsoid(position, middle, np.array([3.5, 13.0, 5.0]) * rng.uniform(0.8, 1.3))
        tissue[distance < rng.uniform(1.3, 1.8)] = index["border"]
        tissue[distance < 1] = index["fluid"]
    deep_grey = ellipsoid(position, np.array([0.0, 0.0, -9.0]), np.array([11.0, 9.0, 6.0]))
    tissue[deep_grey < 1] = index["grey"]
    # Both near zero: along curves.
    vessels = np.abs(smooth_field(rng, 6, head.shape_XYZ)) + np.abs(smooth_field(rng, 6, head.shape_XYZ))
    tissue[(vessels < 0.10) & (depth < 0.55)] = index["vessel"]
    if not skull_stripped:
        tissue[depth <= 0] = index["bone"]
        tissue[depth <= -_SKULL] = index["scalp"]
        tissue[depth <= -_SCALP] = index["air"]
    return tissue


def show_head(
    rng: np.random.Generator,
    tissue: NDArray[np.intp],
    tumour: NDArray[np.bool_],
    modalities: Sequence[str],
    brain: NDArray[np.bool_] | None,
) -> NDArray[np.int16]:
    """image_MXYZ of the tissues, the tumour somewhat uneven: 0 outside `brain`, which of a whole head is not given."""
    # A tumour's own contrast differs from subject to subject: somewhat weaker or stronger than the table.
    strength = rng.uniform(0.8, 1.15, size=len(MODALITIES)).astype(np.float32)
    signal_TM = np.array([*SIGNAL.values(), *TUMOUR_SIGNAL.values()], dtype=np.float32)
    white, tumour_TM = signal_TM[0], signal_TM[len(SIGNAL) :]
    signal_TM[len(SIGNAL) :] = white + (tumour_TM - white) * strength
    image_MXYZ = np.zeros((len(modalities), *tissue.shape), dtype=np.int16)
    mass: Array = tumour.astype(np.float32)
    for m, modality in enumerate(modalities):
        scan: Array = signal_TM[tissue, MODALITIES.index(modality)]
        scan = scan * (1 + 0.10 * mass * smooth_field(rng, 12, scan.shape))
        scan = _soften(scan)  # partial volume: no scanner draws a border as sharp as a mask
        scan = scan * (1 + 0.16 * smooth_field(rng, 3, scan.shape))
        scan = scan + rng.normal(0, 0.045, scan.shape).astype(np.float32)
        gain = WHITE_LEVEL * rng.uniform(0.6, 1.6)  # MR intensities have no unit
        if brain is None:
            image_MXYZ[m] = np.clip(np.abs(scan) * gain, 0, 32767)  # a magnitude: air is noise
        else:
            image_MXYZ[m] = np.where(brain, np.clip(scan * gain, 1, 32767), 0)
    return image_MXYZ


def tissue_of_label(label: int) -> int:
    """The index of a stored label's tissue, behind the healthy ones."""
    return len(SIGNAL) + list(TUMOUR_SIGNAL).index(label)


def ellipsoid(position: Position, middle: NDArray[np.float64], radii: NDArray[np.float64]) -> Array:
    """Distance from `middle` in units of the ellipsoid's radii: 1 on its surface."""
    centre, unit = middle.astype(np.float32), radii.astype(np.float32)
    x, y, z = (((axis - centre[i]) / unit[i]) ** 2 for i, axis in enumerate(position))
    return np.sqrt(x + y + z)


def smooth_field(rng: np.random.Generator, cells: int, shape: Sequence[int]) -> Array:
    """Smooth noise of about unit size: `cells` + 1 random knots an axis, interpolated linearly between them."""
    field = rng.normal(size=(cells + 1,) * 3).astype(np.float32)
    for size in shape:  # interpolate one axis at a time; the finished axis moves to the back
        at = np.linspace(0, cells, size, dtype=np.float32)
        low = np.minimum(at.astype(np.intp), cells - 1)
        part = (at - low).astype(np.float32)[:, None, None]
        blend = field[low] * (1 - part) + field[low + 1] * part
        field = np.moveaxis(blend, 0, -1).astype(np.float32, copy=False)
    return field


def _soften(scan: Array) -> Array:
    """Blur by a (1, 2, 1) / 4 kernel along each axis."""
    for axis in range(3):
        blurred = 0.25 * np.roll(scan, 1, axis) + 0.5 * scan + 0.25 * np.roll(scan, -1, axis)
        scan = blurred.astype(np.float32, copy=False)
    return scan
