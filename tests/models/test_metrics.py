import numpy as np
import pytest
import torch

from models import CaseScores, mean_over_cases, score_case, score_overlap
from models.metrics import WORST_DISTANCE_MM, hausdorff95


def _mask(*voxels: tuple[int, int, int], shape: tuple[int, int, int] = (8, 8, 8)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def test_counts_by_hand() -> None:
    # Region 0: 2 hits, 3 predicted, 4 present. Region 1: no hit.
    predicted = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    present = torch.tensor([[1, 1, 0, 1, 1, 0], [0, 1, 0, 0, 0, 0]])
    scores = score_overlap(predicted, present)
    assert scores.iou == pytest.approx((2 / 5, 0))
    assert scores.dice == pytest.approx((4 / 7, 0))
    assert scores.sensitivity == pytest.approx((2 / 4, 0))
    assert scores.precision == pytest.approx((2 / 3, 0))


def test_empty_regions_follow_the_documented_convention() -> None:
    empty, full = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    assert score_case(empty, empty) == CaseScores(
        iou=(1.0,), dice=(1.0,), sensitivity=(1.0,), precision=(1.0,), hd95=(0.0,)
    )
    nothing = CaseScores(iou=(0.0,), dice=(0.0,), sensitivity=(0.0,), precision=(0.0,), hd95=(WORST_DISTANCE_MM,))
    assert score_case(full, empty) == nothing
    assert score_case(empty, full) == nothing


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


def _score(value: float, hd95: float | None = None) -> CaseScores:
    distances = None if hd95 is None else (hd95,)
    return CaseScores(iou=(value,), dice=(value,), sensitivity=(value,), precision=(value,), hd95=distances)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_the_mean_is_the_same_for_any_number_of_workers(world_size: int) -> None:
    cases = {f"case{index}": _score(0.1 * index, 7.0 * index) for index in range(7)}
    workers = [dict(list(cases.items())[rank::world_size]) for rank in range(world_size)]
    # A sampler that pads its list to equal lengths hands some cases to two workers.
    workers[-1]["case0"] = cases["case0"]
    assert mean_over_cases(workers) == mean_over_cases([cases])
    assert mean_over_cases(workers).iou == pytest.approx((0.3,))
    assert mean_over_cases(workers).hd95 == pytest.approx((21.0,))


def test_means_that_would_lie_are_refused() -> None:
    with pytest.raises(ValueError, match="case a was scored twice with different results"):
        mean_over_cases([{"a": _score(0.1)}, {"a": _score(0.2)}])
    with pytest.raises(ValueError, match="no case was scored"):
        mean_over_cases([{}, {}])
    with pytest.raises(ValueError, match=r"masks of one shape, got \(1, 2\) and \(1, 3\)"):
        score_overlap(torch.zeros(1, 2), torch.zeros(1, 3))
    assert mean_over_cases([{"a": _score(0.1, 1.0), "b": _score(0.2)}]).hd95 is None
