"""One label a voxel: the overlap rules voxel by voxel, and what is left of small components."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from models import OverlapRule, RegionLabels, RegionRules, segment_regions

CHAIN = ((1, 2, 3), (1, 3), (3,))
FORESTS: tuple[RegionLabels, ...] = (
    (*CHAIN, (1,), (2,), (4,)),
    ((2, 6, 5, 3), (6, 5, 3), (3,), (6,), (5,), (2,)),
    ((7,),),
    ((1,), (5, 2, 1), (4, 8), (5,), (2,), (9,), (8,)),  # an inner region before its outer one, several roots
    ((3,), (5,), (1, 2, 3), (3, 1)),
)
CUTS = (0.5, 0.6, 0.7)
BOTH: tuple[OverlapRule, ...] = ("inner", "outer")
LEVELS = (*(step / 8 for step in range(9)), math.nan)  # few, so that many are equal

Label = NDArray[np.uint8]


def old_rule(
    probabilities: torch.Tensor, overlap: OverlapRule, smallest: tuple[float, ...], voxel_mm3: float
) -> NDArray[np.bool_]:
    """Masks of the chain, as they were made when it was all that was known."""
    masks = (probabilities >= torch.tensor(CUTS).reshape(-1, 1, 1, 1)).numpy()
    if overlap == "inner":
        masks[1] |= masks[2]
        masks[0] |= masks[1]
    for region in range(3):
        if region:
            masks[region] &= masks[region - 1]
        components, _ = ndimage.label(masks[region], np.ones((3, 3, 3)))
        large = np.bincount(components.ravel()) >= smallest[region] / voxel_mm3 * (1 - 1e-9)
        masks[region] &= large[components]
    return masks


def drawn(seed: int, *shape: int) -> torch.Tensor:
    """Probabilities of LEVELS, or near the cuts."""
    values = torch.tensor((*LEVELS, *CUTS, *np.nextafter(np.float32(CUTS), np.float32(0))))
    return values[torch.randint(len(values), shape, generator=torch.Generator().manual_seed(seed))]


SIZES = st.tuples(*[st.sampled_from([0.0, 2.0, 5.0])] * 3)
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(SEEDS, st.sampled_from(BOTH), SIZES, st.sampled_from([(1.0, 1.0, 1.0), (2.0, 0.5, 0.75)]))
def test_of_a_chain_all_is_as_it_was(
    seed: int, overlap: OverlapRule, smallest: tuple[float, ...], spacing: tuple[float, ...]
) -> None:
    probabilities = drawn(seed, 3, 6, 5, 4)
    rules = RegionRules(labels=CHAIN, thresholds=CUTS, overlap=overlap, smallest_mm3=smallest)
    by_depth = np.array([0, 2, 1, 3], np.uint8)
    wanted = by_depth[old_rule(probabilities, overlap, smallest, math.prod(spacing)).sum(axis=0)]
    label = segment_regions(probabilities, rules, spacing_mm=spacing)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, wanted)


def decide(passes: str, overlap: OverlapRule) -> int:
    """The label of one voxel that passes the thresholds of `passes`, such as "outermost, innermost"."""
    names = ("outermost", "middle", "innermost")
    probabilities = torch.tensor(
        [cut + (0.1 if name in passes else -0.1) for name, cut in zip(names, CUTS, strict=True)]
    )
    rules = RegionRules(labels=CHAIN, thresholds=CUTS, overlap=overlap)
    return int(segment_regions(probabilities.reshape(3, 1, 1, 1), rules).item())


@pytest.mark.parametrize(
    ("passes", "inner", "outer"),
    [
        ("", 0, 0),
        ("outermost", 2, 2),
        ("middle", 1, 0),
        ("innermost", 3, 0),
        ("outermost, middle", 1, 1),
        ("outermost, innermost", 3, 2),
        ("middle, innermost", 3, 0),
        ("outermost, middle, innermost", 3, 3),
    ],
)
def test_every_contradiction_of_a_chain_is_settled_as_documented(passes: str, inner: int, outer: int) -> None:
    assert (decide(passes, "inner"), decide(passes, "outer")) == (inner, outer)


def label_of(values: list[float], cuts: list[float], labels: RegionLabels, overlap: OverlapRule) -> int:
    """The rule for one voxel: down from the roots, at each fork to the region further above its threshold."""
    sets = [set(region) for region in labels]

    def children(of: set[int] | None) -> list[int]:
        within = [index for index, each in enumerate(sets) if of is None or each < of]
        return [index for index in within if not any(sets[index] < sets[other] for other in within)]

    def above(region: int) -> float:
        own = np.float32(values[region]) - np.float32(cuts[region])
        inner = [above(child) for child in children(sets[region])] if overlap == "inner" else []
        return max([float(own) if own >= 0 else -math.inf, *inner])

    label, around = 0, None
    while passing := [region for region in children(around) if above(region) >= 0]:
        around = sets[max(passing, key=above)]  # of equals the first
        kept = labels[sets.index(around)]
        label = min(kept, key=lambda each: sum(each in region for region in sets))
    return label


@settings(deadline=None)
@given(st.sampled_from(FORESTS), SEEDS, st.sampled_from(BOTH), st.data())
def test_of_regions_that_exclude_each_other_the_one_further_above_its_threshold_has_the_voxel(
    labels: RegionLabels, seed: int, overlap: OverlapRule, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.sampled_from([0.25, 0.375, 0.6]), min_size=len(labels), max_size=len(labels)))
    probabilities = drawn(seed, len(labels), 2, 3, 4)
    label = segment_regions(probabilities, RegionRules(labels=labels, thresholds=tuple(cuts), overlap=overlap))
    wanted = [label_of(values, cuts, labels, overlap) for values in probabilities.flatten(1).T.tolist()]
    assert label.ravel().tolist() == wanted


def test_a_cavity_beside_a_tumour_is_settled_by_margins() -> None:
    """Of three regions, one in another and one apart: by columns of p - t."""
    margins = torch.tensor([[0.1, 0.1, -0.1, -0.1], [-0.2, -0.2, 0.3, 0.1], [0.2, 0.05, 0.2, 0.2]])
    for overlap, wanted in (("inner", [4, 2, 3, 4]), ("outer", [4, 2, 4, 4])):
        rules = RegionRules(labels=((2, 3), (3,), (4,)), thresholds=(0.5,) * 3, overlap=overlap)
        assert segment_regions((margins + 0.5).reshape(3, 1, 1, 4), rules).ravel().tolist() == wanted


def test_a_probability_equal_to_its_threshold_counts() -> None:
    threshold = float(torch.tensor(0.831))  # as checkpoints have it: a float32
    probabilities = torch.full((3, 1, 1, 2), threshold)
    probabilities[..., 1] = torch.nextafter(torch.tensor(threshold), torch.tensor(0.0))
    label = segment_regions(probabilities, RegionRules(labels=CHAIN, thresholds=(threshold,) * 3))
    assert label.ravel().tolist() == [3, 0]


def tumour() -> torch.Tensor:
    """Two tumours with a core each, 8³ and 3³ voxels, and a voxel that touches the small one by a corner."""
    probabilities = torch.zeros(3, 12, 12, 24)
    probabilities[0, 1:9, 1:9, 1:9] = probabilities[0, 2:5, 2:5, 15:18] = probabilities[0, 5, 5, 18] = 1
    probabilities[1, 3:6, 3:6, 3:6] = probabilities[1, 3, 3, 16] = 1
    probabilities[2, 4, 4, 4:6] = 1
    return probabilities


def voxels_of(label: Label, labels: RegionLabels) -> tuple[int, ...]:
    return tuple(int(np.isin(label, region).sum()) for region in labels)


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
    rules = RegionRules(labels=CHAIN, thresholds=CUTS, overlap=overlap, smallest_mm3=smallest)
    assert voxels_of(segment_regions(tumour(), rules), CHAIN) == voxels
    doubled = RegionRules(
        labels=CHAIN, thresholds=CUTS, overlap=overlap, smallest_mm3=tuple(6 * size for size in smallest)
    )
    assert voxels_of(segment_regions(tumour(), doubled, spacing_mm=(3, 2, 1)), CHAIN) == voxels


@pytest.mark.parametrize(
    ("smallest", "cavity"),
    [
        (0, [4, 4, 2, 2]),
        (3, [0, 0, 2, 2]),  # two voxels of it are too few, and what it had of the tumour is not given back
    ],
)
def test_a_small_component_that_had_won_over_another_region_leaves_what_is_around_it(
    smallest: float, cavity: list[int]
) -> None:
    probabilities = torch.tensor([[0.0, 0.6, 0.7, 0.7], [0.9, 0.9, 0.6, 0.1]]).reshape(2, 1, 1, 4)
    rules = RegionRules(labels=((2,), (4,)), thresholds=(0.5, 0.5), smallest_mm3=(0, smallest))
    assert segment_regions(probabilities, rules).ravel().tolist() == cavity


def test_an_inner_region_listed_first_goes_with_its_outer_one() -> None:
    probabilities = torch.ones(2, 1, 1, 2)
    rules = RegionRules(labels=((3,), (2, 3)), thresholds=(0.5, 0.5), smallest_mm3=(0, 3))
    assert not segment_regions(probabilities, rules).any()


def test_rules_for_other_regions_are_refused() -> None:
    says = "wanted rules for 3 regions, got labels of 3, 2 thresholds, 2 and 2 sizes"
    with pytest.raises(ValueError, match=says):
        segment_regions(torch.zeros(3, 1, 1, 1), RegionRules(labels=CHAIN, thresholds=(0.5, 0.5)))
    with pytest.raises(ValueError, match="wanted rules for 2 regions, got labels of 3, 2 thresholds, 2 and 2 sizes"):
        segment_regions(torch.zeros(2, 1, 1, 1), RegionRules(labels=CHAIN, thresholds=(0.5, 0.5)))
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(2, 3\), which overlap in part"):
        RegionRules(labels=((1, 2), (2, 3)), thresholds=(0.5, 0.5))
