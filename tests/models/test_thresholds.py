import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from models import RegionScores, ThresholdCounts

GRIDS = [2, 3, 20, 1001, 4097]


def _brute_force(probabilities: Tensor, regions: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """iou_TR and dice_TR of one case, straight from the definition."""
    predicted_TRV = probabilities.float().flatten(1) >= thresholds[:, None, None]
    truth_RV = regions.flatten(1) != 0
    hits, either = (predicted_TRV & truth_RV).sum(2), (predicted_TRV | truth_RV).sum(2)
    both = predicted_TRV.sum(2) + truth_RV.sum(1)
    iou = torch.where(either > 0, hits.double() / either, 1.0)
    return iou, torch.where(both > 0, 2 * hits.double() / both, 1.0)


def _adversarial_probabilities(num_thresholds: int) -> st.SearchStrategy[float]:
    """Floats that betray sloppy bins: grid values and their neighbours, the ends, denormals, anything between."""
    grid = (np.arange(num_thresholds, dtype=np.float32) / np.float32(num_thresholds - 1)).tolist()
    neighbours = [
        float(np.nextafter(np.float32(value), np.float32(to)))
        for value in grid[:: max(num_thresholds // 60, 1)]
        for to in (-1, 2)
    ]
    special = [0.0, -0.0, 1.0, 1e-45, 1.1754942e-38, 5.9604645e-08, float(np.nextafter(np.float32(1), np.float32(0)))]
    inside = [value for value in neighbours if 0 <= value <= 1]
    return st.one_of(
        st.sampled_from(grid), st.sampled_from(inside), st.sampled_from(special), st.floats(0, 1, width=32)
    )


@st.composite
def _cases(draw: st.DrawFn) -> tuple[int, Tensor, Tensor]:
    num_thresholds = draw(st.sampled_from(GRIDS))
    size = draw(st.integers(1, 24))
    values = draw(st.lists(_adversarial_probabilities(num_thresholds), min_size=2 * size, max_size=2 * size))
    truth = draw(st.lists(st.booleans(), min_size=2 * size, max_size=2 * size))
    dtype = draw(st.sampled_from([torch.float32, torch.float32, torch.float16, torch.bfloat16]))
    probabilities = torch.tensor(values, dtype=torch.float32).to(dtype).reshape(2, size)
    return num_thresholds, probabilities, torch.tensor(truth).to(torch.uint8).reshape(2, size)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_cases())
def test_curves_equal_brute_force_at_every_threshold(case: tuple[int, Tensor, Tensor]) -> None:
    num_thresholds, probabilities, regions = case
    counts = ThresholdCounts(2, num_thresholds)
    counts.update("a", probabilities, regions)
    iou, dice = _brute_force(probabilities, regions, counts.thresholds)
    assert torch.equal(counts.curves()[0], iou)
    assert torch.equal(counts.curves()[1], dice)


@pytest.mark.parametrize("num_thresholds", [*GRIDS, 1024, 50_000, 2**16])
def test_every_grid_value_and_both_its_neighbours_fall_on_the_right_side(
    num_thresholds: int, device: torch.device
) -> None:
    counts = ThresholdCounts(1, num_thresholds, device)
    grid = np.arange(num_thresholds, dtype=np.float32) / np.float32(num_thresholds - 1)
    assert np.array_equal(counts.thresholds.cpu().numpy(), grid)
    for values in (grid, np.nextafter(grid, np.float32(-1)), np.nextafter(grid, np.float32(2))):
        bins = counts._bins(torch.tensor(values, device=device)).cpu().numpy()
        # numpy's search compares the very floats.
        assert np.array_equal(bins, np.searchsorted(grid, values, side="right"))


def test_all_half_precision_probabilities(device: torch.device) -> None:
    counts = ThresholdCounts(1, 1001, device)
    patterns = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    for dtype in (torch.float16, torch.bfloat16):
        values = patterns.view(dtype)
        values = values[(values >= 0) & (values <= 1)]
        bins = counts._bins(values.to(device).float()).cpu().numpy()
        wanted = np.searchsorted(counts.thresholds.cpu().numpy(), values.float().numpy(), side="right")
        assert np.array_equal(bins, wanted)


def test_nan_is_predicted_nowhere_and_values_beyond_the_grid_at_its_end() -> None:
    counts = ThresholdCounts(1, 5)
    bins = counts._bins(torch.tensor([float("nan"), -0.1, 1.5, float("inf"), -float("inf")]))
    assert bins.tolist() == [0, 0, 5, 5, 0]


def _random_case(seed: int, shape: tuple[int, ...] = (3, 4, 5, 6)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    regions = (torch.rand(shape, generator=generator) < 0.3).to(torch.uint8)
    if seed % 3 == 0:
        regions[2] = 0  # a region absent from truth
    noise = torch.randn(shape, generator=generator)
    return torch.sigmoid(3 * (regions - 0.5) + 2 * noise), regions


def test_curves_are_means_over_cases() -> None:
    counts = ThresholdCounts(3, 101)
    cases = [_random_case(seed) for seed in range(5)]
    for index, case in enumerate(cases):
        counts.update(f"case{index}", *case)
    each = [_brute_force(*case, counts.thresholds) for case in cases]
    for which in (0, 1):
        torch.testing.assert_close(
            counts.curves()[which], torch.stack([scores[which] for scores in each]).mean(0), rtol=0, atol=1e-14
        )


def test_any_order_of_parts_cases_and_workers_gives_the_same_result() -> None:
    cases = {f"case{seed}": _random_case(seed) for seed in range(6)}
    whole = ThresholdCounts(3)
    for case_id, case in cases.items():
        whole.update(case_id, *case)
    parts = [(case_id, plane) for case_id in cases for plane in range(4)]
    for seed in range(4):
        shuffled = random.Random(seed).sample(parts, len(parts))
        workers = [ThresholdCounts(3) for _ in range(3)]
        for index, (case_id, plane) in enumerate(shuffled):
            probabilities, regions = cases[case_id]
            workers[index % 3].update(case_id, probabilities[:, plane], regions[:, plane])
        merged = ThresholdCounts(3)
        for worker in random.Random(seed).sample(workers, 3):
            merged.merge(ThresholdCounts.from_state(worker.state()))
        assert merged.case_ids == whole.case_ids
        assert torch.equal(merged.state()["counts"], whole.state()["counts"])
        assert torch.equal(merged.curves()[0], whole.curves()[0])
        assert merged.best_per_region() == whole.best_per_region()


def test_state_survives_a_file(tmp_path: Path) -> None:
    counts = ThresholdCounts(3, 11)
    counts.update("a", *_random_case(1))
    torch.save(counts.state(), tmp_path / "counts.pt")
    again = ThresholdCounts.from_state(torch.load(tmp_path / "counts.pt", weights_only=True))
    assert again.best_shared() == counts.best_shared()


def test_best_thresholds_are_the_highest_of_the_curves() -> None:
    counts = ThresholdCounts(3)
    for seed in range(4):
        counts.update(str(seed), *_random_case(seed))
    iou, dice = counts.curves()
    best = counts.best_per_region()
    assert best.iou == pytest.approx(tuple(iou.max(0).values.tolist()))
    shared = counts.best_shared()
    assert len(set(shared.threshold)) == 1
    assert shared.mean_iou == pytest.approx(float(iou.mean(1).max()))
    assert counts.at(best.threshold) == best
    half = counts.at([0.5, 0.5, 0.5])
    assert half.dice == pytest.approx(tuple(dice[500].tolist()))
    assert (half.cases, best.mean_iou >= half.mean_iou) == (4, True)


def test_of_equally_good_thresholds_the_one_nearest_a_half_is_taken() -> None:
    counts = ThresholdCounts(1, 101)
    counts.update("a", torch.tensor([[0.1, 0.2, 0.8, 0.9]]), torch.tensor([[0, 0, 1, 1]]))
    assert counts.best_per_region() == RegionScores(threshold=(0.5,), iou=(1.0,), dice=(1.0,), cases=1)
    counts.update("a", torch.tensor([[0.55]]), torch.tensor([[0]]))
    assert counts.best_per_region().threshold == pytest.approx((0.56,))


def test_a_region_that_is_never_found_gets_no_threshold_at_which_all_is_predicted() -> None:
    counts = ThresholdCounts(2)
    counts.update("a", torch.tensor([[0.0, 0.0, 0.0], [0.9, 0.9, 0.1]]), torch.tensor([[0, 1, 1], [1, 1, 0]]))
    assert float(counts.curves()[0][0, 0]) > 0.6
    best = counts.best_per_region()
    assert (best.threshold, best.iou) == ((0.5, 0.5), (0.0, 1.0))
    assert counts.best_shared().threshold == (0.5, 0.5)


def test_what_cannot_be_counted_is_refused() -> None:
    counts = ThresholdCounts(3)
    with pytest.raises(ValueError, match="no case was counted"):
        counts.curves()
    with pytest.raises(ValueError, match=r"one shape with 3 regions first, got \(2, 4\) and \(2, 4\)"):
        counts.update("a", torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="can't merge"):
        counts.merge(ThresholdCounts(3, 11))
    with pytest.raises(ValueError, match="2 to 65,536 thresholds"):
        ThresholdCounts(3, 1)
    counts.update("a", *_random_case(1))
    with pytest.raises(ValueError, match=r"0.50049 isn't one of the 1001; the nearest is 0.5\b"):
        counts.at([0.50049] * 3)
    with pytest.raises(ValueError, match="wanted 3 thresholds"):
        counts.at([0.5])


def test_one_pass_instead_of_one_for_each_of_19_cubed_combinations() -> None:
    """cs231n-3d-segmentation's search ran the network for every combination of 19 thresholds for three regions."""
    image, regions = torch.randn(3, 3, 3, 3), _random_case(1, (3, 3, 3, 3))[1]
    passes = 0

    def network(image: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return torch.sigmoid(2 * (regions.float() - 0.5) + image)

    grid = [index / 20 for index in range(1, 20)]
    best_iou, best_thresholds = -1.0, (0.0, 0.0, 0.0)
    for thresholds in itertools.product(grid, repeat=3):
        predicted = network(image) >= torch.tensor(thresholds)[:, None, None, None]
        truth = regions != 0
        iou = (predicted & truth).flatten(1).sum(1) / (predicted | truth).flatten(1).sum(1)
        if float(iou.double().mean()) > best_iou:
            best_iou, best_thresholds = float(iou.double().mean()), thresholds
    theirs, passes = passes, 0

    counts = ThresholdCounts(3, 21)
    counts.update("a", network(image), regions)
    best = counts.best_per_region()
    assert (theirs, passes) == (6859, 1)
    assert best.mean_iou == pytest.approx(best_iou, abs=1e-6)
    assert counts.at(best_thresholds).mean_iou == pytest.approx(best.mean_iou, abs=1e-6)


def test_counting_stays_on_the_device(device: torch.device) -> None:
    counts = ThresholdCounts(3, 101, device)
    probabilities, regions = _random_case(2)
    counts.update("a", probabilities.to(device), regions.to(device))
    assert all(tensor.device.type == device.type for tensor in (*counts.curves(), *counts._counts.values()))
    on_cpu = ThresholdCounts(3, 101)
    on_cpu.update("a", probabilities, regions)
    assert torch.equal(counts.state()["counts"], on_cpu.state()["counts"])


def test_more_voxels_are_counted_than_a_float_can_count() -> None:
    """float32, in which histc counts, ends at 2^24: one more would be none more."""
    counts, voxels = ThresholdCounts(1, 2), 2**24 + 1
    counts.update("large", torch.zeros(1, voxels, dtype=torch.float16), torch.zeros(1, voxels, dtype=torch.uint8))
    assert counts.state()["counts"].flatten().tolist() == [0, voxels, 0, 0, 0, 0]


def test_scores_by_case_are_those_of_each_case_alone() -> None:
    both = ThresholdCounts(2, 11)
    alone = {}
    for seed, case_id in enumerate(("b", "a")):
        generator = torch.Generator().manual_seed(seed)
        probabilities, regions = torch.rand(2, 50, generator=generator), torch.rand(2, 50, generator=generator) > 0.5
        both.update(case_id, probabilities, regions)
        counts = ThresholdCounts(2, 11)
        counts.update(case_id, probabilities, regions)
        alone[case_id] = counts.at((0.3, 0.6))
    by_case = both.by_case((0.3, 0.6))
    assert list(by_case) == ["a", "b"]
    assert by_case == alone
    assert by_case["a"] != by_case["b"]
    mean = both.at((0.3, 0.6))
    assert mean.iou == pytest.approx([(by_case["a"].iou[r] + by_case["b"].iou[r]) / 2 for r in range(2)])
