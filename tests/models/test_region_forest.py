"""Regions as sets of labels: parents, what is left over, and the labels of a network's head."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import RegionLabels, number_labels
from models.region_forest import count_labels, find_parents, left_over_labels, nested_labels, outermost_first

CHAIN = ((1, 2, 3), (1, 3), (3,))
TREATED = (*CHAIN, (1,), (2,), (4,))
CHILD = ((2, 6, 5, 3), (6, 5, 3), (3,), (6,), (5,), (2,))
ALONE = ((7,),)
NAMED = (CHAIN, TREATED, CHILD, ALONE)


@st.composite
def forests(draw: st.DrawFn) -> RegionLabels:
    """Regions in any order, the labels of each in any order."""
    drawn = draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True), min_size=1, max_size=9))
    regions: list[list[int]] = []
    for region in drawn:
        if all(set(region) < set(other) or set(region) > set(other) or not {*region} & {*other} for other in regions):
            regions.append(region)
    return tuple(map(tuple, regions))


@pytest.mark.parametrize(
    ("labels", "parents", "left_over"),
    [
        (CHAIN, (None, 0, 1), (2, 1, 3)),
        (TREATED, (None, 0, 1, 1, 0, None), (2, 1, 3, 1, 2, 4)),
        (CHILD, (None, 0, 1, 1, 1, 0), (2, 6, 3, 6, 5, 2)),
        (ALONE, (None,), (7,)),
        (((3,), (1, 2, 3), (3, 1)), (2, None, 1), (3, 2, 1)),
        (((5, 4), (4,)), (None, 0), (5, 4)),
        (((8, 9),), (None,), (8,)),  # of equals the first listed
        (((9, 8),), (None,), (9,)),
    ],
)
def test_parents_and_labels_that_are_left_over(
    labels: RegionLabels, parents: tuple[int | None, ...], left_over: tuple[int, ...]
) -> None:
    assert (find_parents(labels), left_over_labels(labels)) == (parents, left_over)


@given(forests())
def test_a_parent_is_the_smallest_region_around(labels: RegionLabels) -> None:
    order = outermost_first(labels)
    for region, parent in enumerate(find_parents(labels)):
        around = [set(other) for other in labels if set(other) > set(labels[region])]
        if parent is None:
            assert not around
        else:
            assert set(labels[parent]) == min(around, key=len) and order.index(parent) < order.index(region)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (((1, 2), (2, 3)), r"got \(1, 2\) and \(2, 3\), which overlap in part"),
        (((1, 2, 3), (3,), (4, 3)), r"got \(1, 2, 3\) and \(4, 3\), which overlap in part"),
        (((1, 3), (2,), (3, 1)), r"got \(1, 3\) and \(3, 1\), which hold the same labels"),
        (((1, 2), ()), r"got \(\) among"),
        (((0, 1),), r"from 1 to 255 in each region, got \(0, 1\) among"),
        (((256,),), r"from 1 to 255 in each region, got \(256,\) among"),
    ],
)
def test_regions_that_are_no_forest_are_refused_by_name(labels: RegionLabels, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        find_parents(labels)


@pytest.mark.parametrize(
    ("labels", "numbered"),
    [
        (CHAIN, None),
        (ALONE, None),
        (((5, 6), (6,)), None),
        (((1, 2),), None),  # both are in the one region, and so one
        (TREATED, ((1, 2, 3), (1, 2), (1,), (2,), (3,), (4,))),
        (CHILD, ((1, 2, 3, 4), (1, 2, 3), (1,), (2,), (3,), (4,))),
        (((3,), (1, 3), (1, 2, 3)), ((3,), (2, 3), (1, 2, 3))),
        (((1,), (2,)), ((1,), (2,))),
    ],
)
def test_labels_of_a_head_are_numbered_from_1_on(labels: RegionLabels, numbered: RegionLabels | None) -> None:
    assert number_labels(labels) == numbered


@given(forests())
def test_numbered_labels_say_which_regions_a_voxel_lies_in(labels: RegionLabels) -> None:
    numbered = number_labels(labels) or nested_labels(len(labels))

    def patterns(of: RegionLabels) -> list[tuple[bool, ...]]:
        return [tuple(label in region for region in of) for label in sorted({*sum(of, ())})]

    assert {*patterns(numbered)} == {*patterns(labels)}
    assert len(patterns(numbered)) == len({*patterns(labels)}) == count_labels(numbered) <= len(labels)
    for region in numbered:  # one after the other, as the head's sums take them
        assert region == tuple(range(region[0], region[-1] + 1))
    assert (number_labels(numbered) or nested_labels(len(labels))) == numbered
