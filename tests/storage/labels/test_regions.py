"""Regions of the labels of each convention, and labels of regions."""

import numpy as np
import pytest

from storage.labels.conventions import CONVENTIONS
from storage.labels.regions import labels_of_regions, region_masks


@pytest.mark.parametrize(
    ("name", "source", "whole", "core", "enhancing"),
    [
        ("brats-124", [0, 1, 2, 4], [0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]),
        ("brats-123", [0, 1, 2, 3], [0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]),
        ("gli-2024", [0, 1, 2, 3, 4], [0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 1, 0]),
        ("msd", [0, 1, 2, 3], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]),
    ],
)
def test_regions_of_each_convention(
    name: str, source: list[int], whole: list[int], core: list[int], enhancing: list[int]
) -> None:
    stored = CONVENTIONS[name].to_stored(np.array([[source]], dtype=np.uint8))
    regions_RDHW = region_masks(stored)
    assert regions_RDHW[:, 0, 0].tolist() == [whole, core, enhancing]


def test_regions_become_labels() -> None:
    label = np.array([0, 1, 2, 3, 1, 3, 2, 0], dtype=np.uint8).reshape(2, 2, 2)
    np.testing.assert_array_equal(labels_of_regions(region_masks(label).astype(bool)), label)
