"""Decisions scored on what was counted, against segmenting really."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from models import (
    GRID,
    Decision,
    Evidence,
    Objective,
    RegionLabels,
    RegionRules,
    ThresholdCounts,
    count_evidence,
    segment_regions,
)

CHAIN: RegionLabels = ((1, 2, 3), (1, 3), (3,))
FOREST: RegionLabels = ((3,), (1, 2, 3), (4,), (1, 3))  # an inner region before its outer one, one apart
MM3 = 2.0
SIZES = st.sampled_from([0.0, 4.0, 10.0, 24.0])


def blobs(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Probabilities of a few steps, in blobs of many sizes."""
    rough = ndimage.gaussian_filter(rng.random(shape), 0.7)
    ranks = rough.ravel().argsort().argsort().reshape(shape) / rough.size
    return (np.round(ranks**3 * 20) / 20).astype(np.float32)


def nested_case(seed: int, labels: RegionLabels) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Probabilities of which an inner region has none above that of one around it, and the truth."""
    rng, shape = np.random.default_rng(seed), (7, 6, 9)
    probabilities = np.stack([blobs(rng, shape) for _ in labels])
    for region in sorted(range(len(labels)), key=lambda region: -len(labels[region])):
        for around in range(len(labels)):
            if set(labels[around]) > set(labels[region]):
                np.minimum(probabilities[region], probabilities[around], out=probabilities[region])
    for one in range(len(labels)):
        for other in range(one):
            if set(labels[one]).isdisjoint(labels[other]):  # nowhere do two that exclude each other compete
                probabilities[one][probabilities[other] > 0.2] = 0
    label = rng.choice(5, size=shape, p=[0.6, 0.1, 0.1, 0.1, 0.1]) * (rng.random() > 0.2)
    return probabilities, np.stack([np.isin(label, region) for region in labels])


def score(predicted: NDArray[np.bool_], true: NDArray[np.bool_], objective: Objective) -> float:
    hits, sizes = int((predicted & true).sum()), int(predicted.sum() + true.sum())
    if sizes == 0:
        return 1.0
    return hits / (sizes - hits) if objective == "iou" else 2 * hits / sizes


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([CHAIN, FOREST]), st.data())
def test_a_decision_scores_on_counts_what_it_scores_on_voxels(
    seed: int, labels: RegionLabels, data: st.DataObject
) -> None:
    cases = [nested_case(seed + number, labels) for number in range(2)]
    evidence = Evidence(
        [count_evidence(str(n), str(n), *case, labels, voxel_mm3=MM3) for n, case in enumerate(cases)], labels
    )
    evidence = Evidence.decode(evidence.encode())
    sizes = st.tuples(*[SIZES] * len(labels))
    rising = sorted(data.draw(st.lists(st.sampled_from(GRID), min_size=len(labels), max_size=len(labels))))
    order = sorted(range(len(labels)), key=lambda region: -len(labels[region]))
    decision = Decision(
        thresholds=tuple(rising[order.index(region)] for region in range(len(labels))),
        smallest_mm3=data.draw(sizes),
        empty_below_mm3=data.draw(sizes),
        largest_tumour_only=data.draw(st.booleans()),
    )
    rules = RegionRules(labels=labels, **vars(decision))
    for number, (probabilities, regions) in enumerate(cases):
        label = segment_regions(torch.from_numpy(probabilities), rules, spacing_mm=(MM3, 1, 1))
        for objective in ("iou", "dice"):
            wanted = [score(np.isin(label, labels[r]), regions[r], objective) for r in range(len(labels))]
            assert evidence.scores(decision, objective)[number].tolist() == wanted


@pytest.mark.parametrize("step", range(len(GRID)))
def test_a_threshold_alone_scores_as_threshold_counts_do(step: int) -> None:
    """Whatever the regions say of each other."""
    rng, counts, cases = np.random.default_rng(step), ThresholdCounts(3), []
    for name in ("a", "b", "c"):
        probabilities = np.stack([blobs(rng, (6, 7, 8)) for _ in CHAIN])
        regions = rng.random(probabilities.shape) < 0.2
        counts.update(name, torch.from_numpy(probabilities), torch.from_numpy(regions))
        cases.append(count_evidence(name, name, probabilities, regions, CHAIN, voxel_mm3=1.0))
    at = counts.by_case([GRID[step]] * 3)
    evidence = Evidence(cases, CHAIN)
    for objective in ("iou", "dice"):
        found = evidence.scores(Decision(thresholds=(GRID[step],) * 3), objective)
        assert [tuple(row) for row in found.tolist()] == [getattr(scores, objective) for scores in at.values()]


def test_an_inner_component_without_an_outer_one_is_judged_as_if_it_were_one() -> None:
    """`inner` makes the regions around it of it."""
    probabilities = np.zeros((3, 1, 1, 12), np.float32)
    probabilities[0, 0, 0, :5] = probabilities[2, 0, 0, 8:10] = 1.0
    true = np.ones_like(probabilities, dtype=bool)
    evidence = Evidence([count_evidence("a", "a", probabilities, true, CHAIN, voxel_mm3=1.0)], CHAIN)
    for smallest, kept in (((0.0, 0.0, 0.0), 2), ((0.0, 3.0, 0.0), 0), ((3.0, 0.0, 0.0), 2), ((0.0, 0.0, 3.0), 0)):
        decision = Decision(thresholds=(0.5,) * 3, smallest_mm3=smallest)
        assert evidence.scores(decision, "iou")[0, 2] == kept / 12


def test_what_is_not_on_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted the evidence of one case or more"):
        Evidence([], CHAIN)
    probabilities, regions = nested_case(0, CHAIN)
    evidence = Evidence([count_evidence("a", "a", probabilities, regions, CHAIN, voxel_mm3=1.0)], CHAIN)
    with pytest.raises(ValueError, match=r"threshold 0\.45 isn't one of"):
        evidence.scores(Decision(thresholds=(0.45, 0.5, 0.5)), "iou")
