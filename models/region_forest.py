"""Regions as sets of labels: which of them lies in which, and which label stands for what no inner one takes.

Two regions lie one within the other or have no label in common, so that they form a forest: a region's parent is the
smallest one around it, and regions with one parent, or with none, exclude each other. Imports no PyTorch.
"""

from collections.abc import Iterator
from itertools import combinations

RegionLabels = tuple[tuple[int, ...], ...]
"""The labels of each region, in the order of the network's outputs. 0 is the background, and in none."""


def find_parents(labels: RegionLabels) -> tuple[int | None, ...]:
    """The number of each region's parent, None for one that lies in no other.

    Raises ValueError, naming them, for regions that are the same, overlap in part, or have no label from 1 to 255.
    """
    for region in labels:
        if not region or min(region) < 1 or max(region) > 255:
            raise ValueError(f"wanted one label or more from 1 to 255 in each region, got {region} among {labels}")
    for one, other in combinations(labels, 2):
        if set(one) == set(other):
            raise ValueError(f"wanted regions that differ, got {one} and {other}, which hold the same labels")
        if not (set(one) < set(other) or set(one) > set(other) or set(one).isdisjoint(other)):
            raise ValueError(
                f"wanted regions one within the other or without a common label, got {one} and {other}, "
                "which overlap in part"
            )
    paths = [[around for around in outermost_first(labels) if set(labels[around]) > set(region)] for region in labels]
    return tuple(path[-1] if path else None for path in paths)


def outermost_first(labels: RegionLabels) -> list[int]:
    """The regions' numbers, each behind those around it."""
    return sorted(range(len(labels)), key=lambda region: -len(set(labels[region])))


def find_tumour(labels: RegionLabels) -> int:
    """The region with the most labels, of equals the first: the whole tumour, where a task has one."""
    return outermost_first(labels)[0]


def left_over_labels(labels: RegionLabels) -> tuple[int, ...]:
    """For each region the label of what no inner one takes: that of its labels which lies in the fewest regions.

    Of equals it is the first that is listed.
    """
    count = {label: sum(label in region for region in labels) for region in labels for label in region}
    return tuple(min(region, key=count.__getitem__) for region in labels)


def nested_labels(regions: int) -> RegionLabels:
    """Regions each of which lies within the one before, and holds one label less: of 3 they hold 123, 23 and 3."""
    return tuple(tuple(range(first, regions + 1)) for first in range(1, regions + 1))


def count_labels(labels: RegionLabels) -> int:
    """The number of labels that are counted from 1 on."""
    return max(map(max, labels))


def number_labels(labels: RegionLabels) -> RegionLabels | None:
    """The regions by labels 1 to L such as `UNetConfig.region_labels` wants them; None for nested ones.

    Labels that lie in the same regions, which masks cannot tell apart, become one. Each region's labels follow one
    another. Raises ValueError where the regions are no forest.
    """
    find_parents(labels)
    order = outermost_first(labels)

    def paths(region: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        return (tuple(around for around in order if label in labels[around]) for label in region)

    # A path comes before those that it begins, so a region's numbers have no others between them.
    known = sorted({path for region in labels for path in paths(region)})
    numbered = tuple(tuple(sorted({known.index(path) + 1 for path in paths(region)})) for region in labels)
    return None if numbered == nested_labels(len(labels)) else numbered
