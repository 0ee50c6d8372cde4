import numpy as np
import pytest
from numpy.typing import NDArray

from models.distances import WORST_DISTANCE_MM, hausdorff95


def _mask(*voxels: tuple[int, int, int], shape: tuple[int, int, int] = (8, 8, 8)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def test_hd95_by_hand_in_millimetres() -> None:
    one, other = _mask((1, 1, 1)), _mask((4, 5, 1))
    assert hausdorff95(one, other) == pytest.approx(5.0)
    assert hausdorff95(one, other, spacing_mm=(2.0, 1.0, 1.0)) == pytest.approx(52**0.5)
    assert hausdorff95(one, one) == 0.0


def test_hd95_takes_the_larger_direction_and_ignores_five_percent() -> None:
    line = _mask(*((0, 0, x) for x in range(40)), shape=(1, 30, 40))
    outlier = line.copy()
    outlier[0, 29, 0] = True
    # Of 41 surface voxels one is far: the 95th percentile leaves it out, the maximum wouldn't.
    assert hausdorff95(outlier, line) == 0.0
    half = _mask(*((0, 0, x) for x in range(20)), shape=(1, 30, 40))
    # From the half to the line every distance is 0; the other way they run to 20: percentile 95 of 0 * 20, 1 … 20.
    wanted = np.percentile([0] * 20 + list(range(1, 21)), 95)
    assert hausdorff95(half, line) == pytest.approx(wanted) == hausdorff95(line, half)


def test_empty_masks() -> None:
    empty, one = _mask(), _mask((1, 1, 1))
    assert hausdorff95(empty, empty) == 0.0
    assert hausdorff95(one, empty) == hausdorff95(empty, one) == WORST_DISTANCE_MM == 374.0
