"""Synthetic tumours of every set of regions."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from storage import Region, region_masks
from storage.labels.tasks import GLIOMA_REGIONS, GTV_REGIONS, PAEDIATRIC_REGIONS, POST_TREATMENT_REGIONS

SETS = {
    "glioma": GLIOMA_REGIONS,
    "post-treatment": POST_TREATMENT_REGIONS,
    "paediatric": PAEDIATRIC_REGIONS,
    "gtv": GTV_REGIONS,
}


@pytest.fixture(params=SETS.values(), ids=SETS.keys())
def regions(request: pytest.FixtureRequest) -> Sequence[Region]:
    """Each set of regions that the family has."""
    every: Sequence[Region] = request.param
    return every


@pytest.fixture
def paint_cubes() -> Callable[..., NDArray[np.bool_]]:
    """Make masks_RDHW of cubes, one over the other: (label, low, high along z y and x, voxels to the right)."""

    def paint(
        regions: Sequence[Region], shape: tuple[int, int, int], *cubes: tuple[int, int, int, int]
    ) -> NDArray[np.bool_]:
        label_DHW = np.zeros(shape, np.uint8)
        for label, low, high, right in cubes:
            label_DHW[low:high, low:high, low + right : high + right] = label
        return region_masks(label_DHW, regions).astype(bool)

    return paint
