"""The synthetic tumours of phantom.py, as the labels of each task tell their parts apart: label_XYZ, stored labels.

A case's number decides what it lacks, so that a few cases show all that a task may show. Lengths are in units of 2 mm.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from storage.labels.conventions import (
    CYSTIC_COMPONENT,
    EDEMA,
    ENHANCING,
    GROSS_TUMOUR_VOLUME,
    NECROTIC_CORE,
    NON_ENHANCING_TUMOUR,
    RESECTION_CAVITY,
)
from storage.scans.phantom_head import Array, Head, ellipsoid, smooth_field

Labels = NDArray[np.uint8]
Draw = Callable[[np.random.Generator, Head, int], Labels]


def grade_of(number: int) -> str:
    """Every fourth adult has a tumour of low grade: little necrosis."""
    return "LGG" if number % 4 == 0 else "HGG"


def draw_glioma(rng: np.random.Generator, head: Head, number: int) -> Labels:
    """Nested edema, enhancing rim and necrosis."""
    low_grade = grade_of(number) == "LGG"
    middle = _place(rng, head)
    radii = rng.uniform(12.0, 18.0, 3)
    shape = _blob(rng, head, middle, radii, 0.28, 9)
    core_radii = radii * (rng.uniform(0.55, 0.65) if low_grade else rng.uniform(0.64, 0.78))
    core = _blob(rng, head, middle + rng.uniform(-2, 2, 3), core_radii, 0.22, 12)
    rim = rng.uniform(0.58, 0.68) if low_grade else rng.uniform(0.40, 0.58)  # the rest of the core is necrosis
    return _paint(head, (shape < 1, EDEMA), (core < 1, ENHANCING), (core < rim, NECROTIC_CORE))


def draw_treated_glioma(rng: np.random.Generator, head: Head, number: int) -> Labels:
    """What grew again within or beside the cavity that an operation left; every third was not operated on."""
    label = draw_glioma(rng, head, number)
    if number % 3:
        tumour = np.argwhere(label == ENHANCING)
        edge = tumour[rng.integers(len(tumour))]
        middle = np.array([axis.ravel()[at] for axis, at in zip(head.position, edge, strict=True)], dtype=np.float64)
        label[_blob(rng, head, middle, rng.uniform(6.0, 9.0, 3), 0.15, 9) < 1] = RESECTION_CAVITY
    return label


def draw_paediatric_tumour(rng: np.random.Generator, head: Head, number: int) -> Labels:
    """A core that does not enhance, in little edema; every second has a cyst, and two in three enhance somewhere."""
    middle, radii = _place(rng, head), rng.uniform(12.0, 17.0, 3)
    beside = np.array([0.0, 0.45, 0.0]) * radii
    edema = _blob(rng, head, middle, radii, 0.2, 9) < 1
    core = _blob(rng, head, middle, 0.8 * radii, 0.15, 12) < 1
    enhancing = core & (_blob(rng, head, middle - beside, 0.40 * radii, 0.1, 12) < 1) & bool(number % 3)
    cyst = core & (_blob(rng, head, middle + beside, 0.42 * radii, 0.1, 12) < 1) & bool(number % 2)
    return _paint(head, (edema, EDEMA), (core, NON_ENHANCING_TUMOUR), (enhancing, ENHANCING), (cyst, CYSTIC_COMPONENT))


def draw_metastases(rng: np.random.Generator, head: Head, number: int) -> Labels:
    """Three to six small lesions, the larger ones with a necrosis; in every third case one was taken out."""
    label = np.zeros(head.shape_XYZ, dtype=np.uint8)
    for lesion in range(rng.integers(3, 7)):
        radius = rng.uniform(2.0, 5.0)
        distance = _blob(rng, head, _place(rng, head), np.full(3, radius), 0.1, 12)
        label[distance < 1.8] = EDEMA
        label[distance < 1] = RESECTION_CAVITY if lesion == 0 and number % 3 == 1 else ENHANCING
        if lesion and radius > 3.5:
            label[distance < 0.55] = NECROTIC_CORE
    return label


def draw_meningioma(rng: np.random.Generator, head: Head, number: int) -> Labels:
    """One mass within the skull that touches it, and presses into the brain."""
    direction = rng.normal(size=3)
    direction[2] = abs(direction[2])  # at the vault
    middle = 0.9 * head.brain_axes * direction / np.linalg.norm(direction)
    mass = _blob(rng, head, middle, rng.uniform(9.0, 15.0, 3), 0.12, 9) < 1
    return _paint(head, (mass, GROSS_TUMOUR_VOLUME))


def _place(rng: np.random.Generator, head: Head) -> NDArray[np.float64]:
    """Somewhere in one of the hemispheres."""
    side = rng.choice([-1.0, 1.0])
    parts = np.array([side * rng.uniform(0.30, 0.55), rng.uniform(-0.45, 0.45), rng.uniform(-0.3, 0.4)])
    middle: NDArray[np.float64] = parts * head.brain_axes
    return middle


def _blob(
    rng: np.random.Generator,
    head: Head,
    middle: NDArray[np.float64],
    radii: NDArray[np.float64],
    roughness: float,
    cells: int,
) -> Array:
    """Distance from `middle`, 1 on a surface that is an ellipsoid's but for its roughness."""
    return ellipsoid(head.position, middle, radii) + roughness * smooth_field(rng, cells, head.shape_XYZ)


def _paint(head: Head, *parts: tuple[NDArray[np.bool_], int]) -> Labels:
    label = np.zeros(head.shape_XYZ, dtype=np.uint8)
    for mask, value in parts:
        label[mask] = value
    return label


TUMOURS: dict[str, Draw] = {
    "gli-2021": draw_glioma,
    "gli-2023": draw_glioma,
    "gli-2024": draw_treated_glioma,
    "met-2024": draw_metastases,
    "ped-2024": draw_paediatric_tumour,
    "men-rt": draw_meningioma,
}
