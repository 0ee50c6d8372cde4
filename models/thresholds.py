"""IoU and Dice at every threshold of a grid, exactly, from one pass over the probabilities.

Each voxel falls into a bin between two thresholds; counts of positive and negative voxels per bin say how many are
predicted at every threshold. cs231n-3d-segmentation ran the network once for each of 19³ threshold combinations.

Letters in names: N cases, R region, T threshold, K = T + 1 bins, D H W voxels z y x.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.config import Objective


@dataclass(frozen=True, kw_only=True)
class RegionScores:
    """Scores of each region, in the regions' order, at the thresholds given: means over so many `cases`, 0 to 1."""

    threshold: tuple[float, ...]
    iou: tuple[float, ...]
    dice: tuple[float, ...]
    cases: int

    @property
    def mean_iou(self) -> float:
        """Mean over the regions."""
        return sum(self.iou) / len(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean over the regions."""
        return sum(self.dice) / len(self.dice)

    def mean(self, objective: Objective) -> float:
        """The mean over the regions that is to be as high as it can."""
        return self.mean_iou if objective == "iou" else self.mean_dice


class ThresholdCounts:
    """Counts per case, region, truth and bin; int64, so that any order of updates and merges gives the same result.

    The thresholds are k / (num_thresholds - 1) in float32, 0 and 1 included. A voxel is predicted where
    `probability >= threshold`, both float32 (half precision converts exactly); NaN is predicted nowhere.
    Voxels outside the stored box needn't be counted: they are negative in truth and prediction at every threshold
    but 0, where everything is predicted; the scores at 0 are therefore those of the box.
    Counting stays on `device`, and the host does not wait for it before it asks for scores.
    Raises ValueError for no region, and for fewer than 2 or more than 65,536 thresholds.
    """

    def __init__(self, num_regions: int, num_thresholds: int = 1001, device: torch.device | str = "cpu") -> None:
        # The upper bound keeps the rounding in _bins far below half a bin.
        if num_regions < 1 or not 2 <= num_thresholds <= 2**16:
            raise ValueError(
                f"wanted at least one region and 2 to 65,536 thresholds, got {num_regions} and {num_thresholds}"
            )
        self.num_regions = num_regions
        self.num_thresholds = num_thresholds
        self.device = torch.device(device)
        self._steps = torch.full((), num_thresholds - 1.0, device=self.device)
        self.thresholds = torch.arange(num_thresholds, device=self.device, dtype=torch.float32) / self._steps
        self._counts: dict[str, Tensor] = {}

    @property
    def case_ids(self) -> tuple[str, ...]:
        """The cases counted so far, sorted."""
        return tuple(sorted(self._counts))

    def update(self, case_id: str, probabilities_RDHW: Tensor, regions_RDHW: Tensor) -> None:
        """Count the voxels of a case, or of a part of it (a slice, a block) that no other update covers.

        probabilities_RDHW: floating point, any number of spatial axes; regions_RDHW: same shape, non-zero inside.
        Raises ValueError when shapes disagree.
        """
        wanted = (self.num_regions, *probabilities_RDHW.shape[1:])
        if tuple(probabilities_RDHW.shape) != wanted or tuple(regions_RDHW.shape) != wanted:
            raise ValueError(
                f"wanted probabilities and regions of one shape with {self.num_regions} regions first, "
                f"got {tuple(probabilities_RDHW.shape)} and {tuple(regions_RDHW.shape)}"
            )
        counts = torch.stack(
            [self._count(probabilities_RDHW[region], regions_RDHW[region]) for region in range(self.num_regions)]
        )
        self._add(case_id, counts)

    def merge(self, other: "ThresholdCounts") -> None:
        """Add another's counts; a case in both is taken as two parts of it (give each voxel to one worker only).

        Raises ValueError for counts of other regions or thresholds.
        """
        if (other.num_regions, other.num_thresholds) != (self.num_regions, self.num_thresholds):
            raise ValueError(
                f"can't merge counts of {other.num_regions} regions and {other.num_thresholds} thresholds into "
                f"{self.num_regions} and {self.num_thresholds}"
            )
        for case_id, counts in other._counts.items():
            self._add(case_id, counts.to(self.device))

    def state(self) -> dict[str, Any]:
        """Plain values for all_gather_object or a file: counts as an int64 CPU tensor (N, R, 2, K)."""
        return {
            "num_regions": self.num_regions,
            "num_thresholds": self.num_thresholds,
            "case_ids": list(self.case_ids),
            "counts": self._stack().cpu(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], device: torch.device | str = "cpu") -> "ThresholdCounts":
        """The inverse of `state`."""
        counts = cls(state["num_regions"], state["num_thresholds"], device)
        for case_id, values in zip(state["case_ids"], state["counts"], strict=True):
            counts._add(case_id, values.to(counts.device))
        return counts

    def curves(self) -> tuple[Tensor, Tensor]:
        """Float64 iou_TR and dice_TR at every threshold: the mean over cases.

        A region empty in truth and prediction scores 1. Raises ValueError when nothing was counted.
        """
        if not self._counts:
            raise ValueError("no case was counted, so there are no scores; call update() first")
        counts_NR2K = self._stack()
        # Predicted at threshold k: every voxel in a bin above k.
        above_NR2T = counts_NR2K.flip(-1).cumsum(-1).flip(-1)[..., 1:]
        hits_NRT = above_NR2T[:, :, 1]
        predicted_NRT = above_NR2T.sum(2)
        present_NRT = counts_NR2K[:, :, 1].sum(-1, keepdim=True)
        iou_NRT = divide_or_one(hits_NRT, predicted_NRT + present_NRT - hits_NRT)
        dice_NRT = divide_or_one(2 * hits_NRT, predicted_NRT + present_NRT)
        return iou_NRT.mean(0).T, dice_NRT.mean(0).T

    def best_per_region(self, objective: Objective = "iou") -> RegionScores:
        """For each region the threshold with the highest score; of equals, the one nearest 0.5.

        Never 0, which predicts the whole scan whatever the network says: a region that is never found would get it.
        """
        iou_TR, dice_TR = self.curves()
        score_TR = iou_TR if objective == "iou" else dice_TR
        return self._scores([self._argmax(score_TR[:, region]) for region in range(self.num_regions)], iou_TR, dice_TR)

    def best_shared(self, objective: Objective = "iou") -> RegionScores:
        """The one threshold with the highest score averaged over the regions; of equals, the one nearest 0.5.

        Never 0, as above.
        """
        iou_TR, dice_TR = self.curves()
        score_TR = iou_TR if objective == "iou" else dice_TR
        return self._scores([self._argmax(score_TR.mean(1))] * self.num_regions, iou_TR, dice_TR)

    def at(self, thresholds: Sequence[float]) -> RegionScores:
        """Scores at given thresholds, one for each region. Raises ValueError for one that isn't on the grid."""
        if len(thresholds) != self.num_regions:
            raise ValueError(f"wanted {self.num_regions} thresholds, one for each region, got {tuple(thresholds)}")
        grid = self.thresholds.cpu()
        indices: list[int] = []
        for threshold in thresholds:
            index = int((grid - threshold).abs().argmin())
            if grid[index] != torch.tensor(threshold, dtype=torch.float32):
                raise ValueError(
                    f"threshold {threshold} isn't one of the {self.num_thresholds}; the nearest is {grid[index]:.6g}"
                )
            indices.append(index)
        return self._scores(indices, *self.curves())

    def by_case(self, thresholds: Sequence[float]) -> dict[str, RegionScores]:
        """What `at` gives for each case alone."""
        scores: dict[str, RegionScores] = {}
        for case_id, counts in self._counts.items():
            alone = ThresholdCounts(self.num_regions, self.num_thresholds, self.device)
            alone._add(case_id, counts)
            scores[case_id] = alone.at(thresholds)
        return dict(sorted(scores.items()))

    def _count(self, probabilities: Tensor, region: Tensor) -> Tensor:
        bins = self._bins(probabilities.flatten().float())
        bins.add_((region.flatten() != 0).to(bins.dtype), alpha=self.num_thresholds + 1)
        # Not bincount, which on a GPU reads back the lowest and the highest bin and makes the host wait. histc counts
        # in float32, whole numbers exactly up to 2^24 and so in any order; a bin's number lies in the middle of its
        # interval, where no rounding reaches the next.
        number = 2 * (self.num_thresholds + 1)
        parts = [torch.histc(part, number, min=-0.5, max=number - 0.5) for part in bins.split(2**24)]
        return torch.stack(parts).to(torch.int64).sum(0).reshape(2, self.num_thresholds + 1)

    def _bins(self, probabilities: Tensor) -> Tensor:
        """How many thresholds are <= each float32 probability, as float32.

        The product is off by far less than half a step, so rounding gives k with threshold[k-1] < p < threshold[k+1],
        and one comparison with threshold[k] settles it. That threshold is computed as the grid was, by dividing by a
        tensor: division by a number becomes a product on GPUs, which rounds differently. (torch.bucketize gives the
        same bins at 7 times the cost.)
        """
        nearest = torch.nan_to_num(probabilities * self._steps).round_()
        nearest.clamp_(0, self.num_thresholds - 1)
        return nearest + (probabilities >= nearest / self._steps)

    def _add(self, case_id: str, counts: Tensor) -> None:
        self._counts[case_id] = self._counts[case_id] + counts if case_id in self._counts else counts

    def _stack(self) -> Tensor:
        """int64 (N, R, 2, K), cases sorted: sums of floats over cases then have one order."""
        if not self._counts:
            return torch.zeros(0, self.num_regions, 2, self.num_thresholds + 1, dtype=torch.int64, device=self.device)
        return torch.stack([self._counts[case_id] for case_id in self.case_ids])

    def _argmax(self, score_T: Tensor) -> int:
        # Equal scores may differ in the last bit, by where torch's vectorised sum put them.
        best_T = score_T >= score_T[1:].max() - 1e-12
        distance_T = (self.thresholds.double() - 0.5).abs()
        distance_T[0] = torch.inf
        return int(torch.where(best_T, distance_T, torch.inf).argmin())

    def _scores(self, indices: Sequence[int], iou_TR: Tensor, dice_TR: Tensor) -> RegionScores:
        return RegionScores(
            threshold=tuple(float(self.thresholds[index]) for index in indices),
            iou=tuple(float(iou_TR[index, region]) for region, index in enumerate(indices)),
            dice=tuple(float(dice_TR[index, region]) for region, index in enumerate(indices)),
            cases=len(self._counts),
        )


def divide_or_one(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Float64 quotient of counts, 1 where both are empty."""
    return torch.where(denominator == 0, 1.0, numerator.double() / denominator.clamp(min=1).double())
