"""Nested masks: the overlap rules voxel by voxel, and what is left of small components."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import OverlapRule, RegionRules, segment_regions

CUTS = (0.5, 0.6, 0.7)
BOTH: tuple[OverlapRule, ...] = ("inner", "outer")


def decide(passes: str, overlap: OverlapRule) -> str:
    """What one voxel becomes that passes the thresholds of `passes`, such as "WT ET"."""
    names = ("WT", "TC", "ET")
    probabilities = torch.tensor(
        [cut + (0.1 if name in passes else -0.1) for name, cut in zip(names, CUTS, strict=True)]
    )
    masks = segment_regions(probabilities.reshape(3, 1, 1, 1), RegionRules(thresholds=CUTS, overlap=overlap))
    return " ".join(name for name, mask in zip(names, masks, strict=True) if mask[0, 0, 0])


@pytest.mark.parametrize(
    ("passes", "inner", "outer"),
    [
        ("", "", ""),
        ("WT", "WT", "WT"),
        ("TC", "WT TC", ""),
        ("ET", "WT TC ET", ""),
        ("WT TC", "WT TC", "WT TC"),
        ("WT ET", "WT TC ET", "WT"),
        ("TC ET", "WT TC ET", ""),
        ("WT TC ET", "WT TC ET", "WT TC ET"),
    ],
)
def test_every_contradiction_is_settled_as_documented(passes: str, inner: str, outer: str) -> None:
    assert (decide(passes, "inner"), decide(passes, "outer")) == (inner, outer)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(BOTH), st.tuples(*[st.sampled_from([0.0, 2.0, 5.0])] * 3))
def test_masks_are_nested_whatever_comes(seed: int, overlap: OverlapRule, smallest: tuple[float, ...]) -> None:
    probabilities = torch.rand(3, 6, 5, 4, generator=torch.Generator().manual_seed(seed))
    rules = RegionRules(thresholds=CUTS, overlap=overlap, smallest_mm3=smallest)
    whole, core, enhancing = segment_regions(probabilities, rules)
    assert not (core & ~whole).any() and not (enhancing & ~core).any()
    if not any(smallest):  # the rule keeps one region as its threshold has it
        kept, index = (enhancing, 2) if overlap == "inner" else (whole, 0)
        np.testing.assert_array_equal(kept, (probabilities[index] >= CUTS[index]).numpy())


def test_a_probability_equal_to_its_threshold_counts() -> None:
    threshold = float(torch.tensor(0.831))  # as checkpoints have it: a float32
    probabilities = torch.full((3, 1, 1, 2), threshold)
    probabilities[..., 1] = torch.nextafter(torch.tensor(threshold), torch.tensor(0.0))
    masks = segment_regions(probabilities, RegionRules(thresholds=(threshold,) * 3))
    assert masks[:, 0, 0].tolist() == [[True, False]] * 3


def tumour() -> torch.Tensor:
    """Two tumours with a core each, 8³ and 3³ voxels, and a voxel that touches the small one by a corner."""
    probabilities = torch.zeros(3, 12, 12, 24)
    probabilities[0, 1:9, 1:9, 1:9] = probabilities[0, 2:5, 2:5, 15:18] = probabilities[0, 5, 5, 18] = 1
    probabilities[1, 3:6, 3:6, 3:6] = probabilities[1, 3, 3, 16] = 1
    probabilities[2, 4, 4, 4:6] = 1
    return probabilities


@pytest.mark.parametrize(
    ("smallest", "voxels"),
    [
        ((0, 0, 0), (512 + 28, 27 + 1, 2)),
        ((28, 0, 0), (512 + 28, 27 + 1, 2)),  # exactly as large as is wanted; corners count as touching
        ((29, 0, 0), (512, 27, 2)),  # the small tumour goes, and its core with it
        ((0, 2, 0), (512 + 28, 27, 2)),  # a core that goes is edema
        ((0, 0, 3), (512 + 28, 27 + 1, 0)),  # enhancing voxels that go are core
        ((1000, 0, 0), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("overlap", BOTH)
def test_small_components_go(smallest: tuple[float, ...], voxels: tuple[int, ...], overlap: OverlapRule) -> None:
    rules = RegionRules(thresholds=CUTS, overlap=overlap, smallest_mm3=smallest)
    assert tuple(segment_regions(tumour(), rules).sum(axis=(1, 2, 3))) == voxels
    doubled = RegionRules(thresholds=CUTS, overlap=overlap, smallest_mm3=tuple(6 * size for size in smallest))
    assert tuple(segment_regions(tumour(), doubled, spacing_mm=(3, 2, 1)).sum(axis=(1, 2, 3))) == voxels


def test_rules_for_other_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted rules for 3 regions, got 2 thresholds, 3 sizes"):
        segment_regions(torch.zeros(3, 1, 1, 1), RegionRules(thresholds=(0.5, 0.5)))
