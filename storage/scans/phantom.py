"""A synthetic cohort, written as the BraTS 2020 training set is: real NIfTI files with real names.

Each case is a skull-stripped head with white and grey matter, ventricles, vessels and one tumour (edema around a
core of enhancing rim and necrosis) whose place, size and shape differ. Contrasts follow what each modality shows of
each tissue; a bias field, noise, bright vessels on t1ce and bright ventricle borders on FLAIR keep a plain threshold
from finding the tumour.

Shapes: XYZ as NIfTI stores them; M modalities in the order of `storage.MODALITIES`.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from storage.labels.conventions import MODALITIES

Array = NDArray[np.float32]
Position = list[Array]  # of each voxel along x, y and z: three arrays, each with one side only

COHORT_FOLDER = "MICCAI_BraTS2020_TrainingData"
GRID_XYZ = (120, 120, 78)
SPACING_MM = 2.0
WHITE_LEVEL = 600.0  # int16 value of healthy white matter on t1

# Signal of each tissue relative to white matter on t1, in the order of MODALITIES: flair, t1, t1ce, t2.
# Tumour contrasts: Menze et al. 2015, "The Multimodal Brain Tumor Image Segmentation Benchmark", section III.
SIGNAL: dict[str, tuple[float, float, float, float]] = {
    "white": (0.80, 1.00, 1.00, 0.75),
    "grey": (0.98, 0.78, 0.80, 1.00),
    "fluid": (0.32, 0.35, 0.36, 1.65),
    "vessel": (0.60, 0.70, 1.45, 0.60),
    "border": (1.25, 0.88, 0.90, 1.10),  # ventricle borders of older subjects: bright on FLAIR, not a tumour
    "edema": (1.28, 0.78, 0.79, 1.33),
    "necrosis": (0.92, 0.52, 0.56, 1.45),
    "enhancing": (1.15, 0.78, 1.38, 1.12),
}


def write_phantom_cohort(
    folder: Path, *, cases: int = 16, seed: int = 0, on_case: Callable[[str], None] = lambda case_id: None
) -> Path:
    """Write `cases` synthetic cases below `folder` and return the folder that holds them.

    The layout is BraTS 2020's: `MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz`
    and so on, int16 scans and uint8 labels {0, 1, 2, 4} on a 120 x 120 x 78 grid of 2 mm, and `name_mapping.csv`.
    The same `seed` gives the same voxels. A case that is already complete is left as it is. `on_case` is called with
    the id of each case once its files are there.
    """
    root = folder / COHORT_FOLDER
    root.mkdir(parents=True, exist_ok=True)
    grades = ["LGG" if number % 4 == 0 else "HGG" for number in range(1, cases + 1)]
    for number, grade in enumerate(grades, start=1):
        case_id = f"BraTS20_Training_{number:03d}"
        done = root / case_id / f"{case_id}_seg.nii.gz"
        if not done.exists():
            image_MXYZ, label_XYZ = make_phantom(np.random.default_rng([seed, number]), grade)
            done.parent.mkdir(exist_ok=True)
            for modality, scan_XYZ in zip(MODALITIES, image_MXYZ, strict=True):
                _save(scan_XYZ, done.with_name(f"{case_id}_{modality}.nii.gz"))
            _save(label_XYZ, done)
        on_case(case_id)
    with (root / "name_mapping.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Grade", "BraTS_2020_subject_ID"])
        writer.writerows([grade, f"BraTS20_Training_{n:03d}"] for n, grade in enumerate(grades, start=1))
    return root


def make_phantom(rng: np.random.Generator, grade: str) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return one case: image_MXYZ int16 with background 0, and label_XYZ uint8 in BraTS 2020's {0, 1, 2, 4}."""
    half = np.array(GRID_XYZ) / 2
    axes = [(np.arange(n, dtype=np.float32) - h) for n, h in zip(GRID_XYZ, half, strict=True)]
    position: Position = list(np.meshgrid(*axes, indexing="ij", sparse=True))  # voxels from the middle
    brain_axes = np.array([35.0, 43.0, 31.0]) * rng.uniform(0.93, 1.05, 3)
    depth = 1 - _ellipsoid(position, np.zeros(3), brain_axes) + 0.05 * _smooth_field(rng, 7)  # 1 middle, 0 surface
    brain = depth > 0

    tissue = _draw_anatomy(rng, position, depth)
    label_XYZ, tumour = _draw_tumour(rng, position, brain_axes, grade)
    label_XYZ[~brain] = 0
    for name, value in (("edema", 2), ("necrosis", 1), ("enhancing", 4)):
        tissue[label_XYZ == value] = list(SIGNAL).index(name)

    signal_TM = np.array(list(SIGNAL.values()), dtype=np.float32)
    # A tumour's own contrast differs from subject to subject: somewhat weaker or stronger than the table.
    strength = rng.uniform(0.8, 1.15, size=len(MODALITIES)).astype(np.float32)
    white = signal_TM[0]
    signal_TM[-3:] = white + (signal_TM[-3:] - white) * strength
    image_MXYZ = np.zeros((len(MODALITIES), *GRID_XYZ), dtype=np.int16)
    for m in range(len(MODALITIES)):
        scan = signal_TM[tissue, m]
        scan = scan * (1 + 0.10 * tumour * _smooth_field(rng, 12))  # tumours are not uniform inside
        scan = _soften(scan)  # partial volume: no scanner draws a border as sharp as a mask
        scan = scan * (1 + 0.16 * _smooth_field(rng, 3)) + rng.normal(0, 0.045, scan.shape).astype(np.float32)
        gain = WHITE_LEVEL * rng.uniform(0.6, 1.6)  # MR intensities have no unit
        image_MXYZ[m] = np.where(brain, np.clip(scan * gain, 1, 32767), 0)
    return image_MXYZ, label_XYZ


def _draw_anatomy(rng: np.random.Generator, position: Position, depth: Array) -> NDArray[np.intp]:
    """Return each voxel's index into SIGNAL: white matter, grey rind, ventricles with their borders, vessels."""
    index = {name: i for i, name in enumerate(SIGNAL)}
    folds = 0.5 * _smooth_field(rng, 16)
    tissue = np.where(depth < 0.17 * (1 + folds), index["grey"], index["white"])
    for side in (-1, 1):
        middle = np.array([side * rng.uniform(6, 8), rng.uniform(-4, 4), rng.uniform(0, 5)])
        distance = _ellipsoid(position, middle, np.array([3.5, 13.0, 5.0]) * rng.uniform(0.8, 1.3))
        tissue[distance < rng.uniform(1.3, 1.8)] = index["border"]
        tissue[distance < 1] = index["fluid"]
    deep_grey = _ellipsoid(position, np.array([0.0, 0.0, -9.0]), np.array([11.0, 9.0, 6.0]))
    tissue[deep_grey < 1] = index["grey"]
    vessels = np.abs(_smooth_field(rng, 6)) + np.abs(_smooth_field(rng, 6))  # both near zero: along curves
    tissue[(vessels < 0.10) & (depth < 0.55)] = index["vessel"]
    return tissue


def _draw_tumour(
    rng: np.random.Generator, position: Position, brain_axes: NDArray[np.float64], grade: str
) -> tuple[NDArray[np.uint8], Array]:
    """Return label_XYZ of one tumour of nested edema, enhancing rim and necrosis, and its mask as floats."""
    side = rng.choice([-1.0, 1.0])
    middle = np.array([side * rng.uniform(0.30, 0.55), rng.uniform(-0.45, 0.45), rng.uniform(-0.3, 0.4)]) * brain_axes
    radii = rng.uniform(12.0, 18.0, 3)
    shape = _ellipsoid(position, middle, radii) + 0.28 * _smooth_field(rng, 9)
    core_radii = radii * (rng.uniform(0.55, 0.65) if grade == "LGG" else rng.uniform(0.64, 0.78))
    core = _ellipsoid(position, middle + rng.uniform(-2, 2, 3), core_radii) + 0.22 * _smooth_field(rng, 12)
    rim = rng.uniform(0.58, 0.68) if grade == "LGG" else rng.uniform(0.40, 0.58)  # the rest of the core is necrosis
    label = np.zeros(GRID_XYZ, dtype=np.uint8)
    label[shape < 1] = 2
    label[core < 1] = 4
    label[core < rim] = 1
    return label, (label > 0).astype(np.float32)


def _ellipsoid(position: Position, middle: NDArray[np.float64], radii: NDArray[np.float64]) -> Array:
    """Distance from `middle` in units of the ellipsoid's radii: 1 on its surface."""
    centre, unit = middle.astype(np.float32), radii.astype(np.float32)
    x, y, z = (((axis - centre[i]) / unit[i]) ** 2 for i, axis in enumerate(position))
    return np.sqrt(x + y + z)


def _smooth_field(rng: np.random.Generator, cells: int) -> Array:
    """Smooth noise of about unit size: `cells` + 1 random knots an axis, interpolated linearly between them."""
    field = rng.normal(size=(cells + 1,) * 3).astype(np.float32)
    for size in GRID_XYZ:  # interpolate one axis at a time; the finished axis moves to the back
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


def _save(array_XYZ: NDArray[np.int16] | NDArray[np.uint8], path: Path) -> None:
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    affine[1, 3] = (GRID_XYZ[1] - 1) * SPACING_MM  # LPS with the origin where BraTS has it
    part = path.with_name(f"part-{path.name}")
    nibabel.save(nibabel.Nifti1Image(array_XYZ, affine), part)
    part.replace(path)  # an interrupted run leaves no half-written scan under a real name
