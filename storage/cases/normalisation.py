"""Intensity statistics over the brain, exact, and the normalisation that training and prediction derive from them.

Shapes: M modality, D H W voxels z y x. "Brain" is every voxel where any modality is not 0.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from storage.cases.info import CaseInfo

PERCENTILES = (0.5, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.5)


@dataclass(frozen=True, kw_only=True)
class IntensityStatistics:
    """The fields of a record that are per modality, over the brain.

    `std` is the population's; percentiles are values that occur (nearest rank).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    percentiles: dict[str, tuple[float, ...]]


def brain_mask(image_MDHW: NDArray[Any]) -> NDArray[np.bool_]:
    """True where any modality is not 0: DHW."""
    mask: NDArray[np.bool_] = image_MDHW[0] != 0
    for modality_DHW in image_MDHW[1:]:
        mask |= modality_DHW != 0
    return mask


def measure_intensities(image_MDHW: NDArray[Any], brain_DHW: NDArray[np.bool_]) -> IntensityStatistics:
    """Statistics of each modality over the brain, which must not be empty."""
    rows = [_measure_one(modality_DHW[brain_DHW]) for modality_DHW in image_MDHW]
    mean, std, minimum, *between, maximum = zip(*rows, strict=True)
    return IntensityStatistics(
        mean=mean,
        std=std,
        minimum=minimum,
        maximum=maximum,
        percentiles={f"{percentage:g}": values for percentage, values in zip(PERCENTILES, between, strict=True)},
    )


def normalisation_coefficients(
    info: CaseInfo, scheme: Literal["zscore", "minmax"]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(scale_M, offset_M), float32, with z = image * scale + offset inside the brain; outside it z is exactly 0.

    "zscore" gives mean 0 and standard deviation 1 over the brain, "minmax" the range 0..1 over the whole scan, whose
    background is 0. A constant modality becomes 0.
    Raises ValueError for another scheme.
    """
    if scheme not in ("zscore", "minmax"):
        raise ValueError(f"wanted the scheme zscore or minmax, got {scheme!r}")
    minimum = np.minimum(info.minimum, 0.0)
    shift = np.asarray(info.mean) if scheme == "zscore" else minimum
    spread = np.asarray(info.std) if scheme == "zscore" else np.asarray(info.maximum) - minimum
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return scale.astype(np.float32), (-shift * scale).astype(np.float32)


def filled_coefficients(
    image_MDHW: NDArray[Any],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """(scale, offset) as "zscore" gives them where zeros that brain encloses are brain, too, and the mask of those.

    So nnU-Net v2 has it (preprocessing/cropping/cropping.py): 0 to 13 voxels of a BraTS 2018 case.
    """
    from scipy.ndimage import binary_fill_holes  # takes long to import, and only networks from nnU-Net want it

    brain_DHW = brain_mask(image_MDHW)
    filled_DHW = binary_fill_holes(brain_DHW)
    values = [np.asarray(modality_DHW[filled_DHW], np.float64) for modality_DHW in image_MDHW]
    mean, spread = (np.array([measure(each) for each in values]) for measure in (np.mean, np.std))
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    return scale.astype(np.float32), (-mean * scale).astype(np.float32), filled_DHW & ~brain_DHW


def _measure_one(values: NDArray[Any]) -> list[float]:
    """Mean, standard deviation, and the values at 0 %, each of PERCENTILES and 100 %."""
    ranks = np.array([0, *np.ceil(np.asarray(PERCENTILES) / 100 * values.size).astype(int) - 1, values.size - 1])
    ranks = ranks.clip(0, values.size - 1)
    if values.dtype == np.int16:
        # A histogram of all 65,536 values gives everything in one pass, exactly, where sorting takes ten times longer.
        counts = np.bincount(values.view(np.uint16), minlength=1 << 16)
        counts = np.roll(counts, 1 << 15)  # the negative half first
        levels = np.arange(-(1 << 15), 1 << 15, dtype=np.float64)
        # Sums of products rather than `@`: BLAS would wake all its threads for 65,536 numbers.
        mean = float(np.sum(counts * levels) / values.size)
        std = float(np.sqrt(np.sum(counts * (levels - mean) ** 2) / values.size))
        at_ranks = levels[np.searchsorted(np.cumsum(counts), ranks, side="right")]
    else:
        mean, std = float(np.mean(values, dtype=np.float64)), float(np.std(values, dtype=np.float64))
        at_ranks = np.sort(values)[ranks].astype(np.float64)
    return [mean, std, *at_ranks.tolist()]
