"""What is counted of cases so that any decision can be scored afterwards, exactly and without the probabilities.

Of each region and each threshold of a short grid: the connected components, their voxels, how many of those are true,
and in which component of the region around they lie. A region is scored alone, as by `ThresholdCounts`: equal to
what `segment_regions` makes where no voxel is likelier in an inner region than in one around it and thresholds do not
fall inwards; elsewhere that settles contradictions, and this does not.

Letters in names: N cases, R region, T threshold of the grid, C components, D H W voxels z y x.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.components import ROUNDING, find_box, number_components
from models.config import Objective
from models.decision import Decision
from models.region_forest import RegionLabels, find_parents, find_tumour, outermost_first

GRID = (0.3, 0.4, 0.5, 0.6, 0.7)
"""The thresholds that evidence is counted at, and so those that a decision may have."""
_REGION, _STEP, _VOXELS, _HITS, _AROUND = range(5)  # columns of a table; from _AROUND on one for each threshold


@dataclass(frozen=True, kw_only=True)
class CaseEvidence:
    """One case's counts: `true_R` voxels of each region, and its components.

    Columns of `components_CX`: region, step of the grid, voxels, hits, then for each threshold the number of the
    component of the region around, cut there, in which this one lies (from 1; 0: in none). Rows are in the order of
    region, step and number.
    """

    case_id: str
    subject: str
    voxel_mm3: float
    true_R: NDArray[np.int64]
    components_CX: NDArray[np.int64]


def count_evidence(
    case_id: str,
    subject: str,
    probabilities_RDHW: NDArray[np.float32],
    regions_RDHW: NDArray[np.bool_],
    labels: RegionLabels,
    *,
    voxel_mm3: float,
) -> CaseEvidence:
    """Count a case: probabilities_RDHW, what is true, and the labels of each region; voxel_mm3 is one voxel's volume.

    A component that several of those around it share counts as lying in one of them. Raises ValueError where the
    regions are no forest (region_forest.py).
    """
    parents = find_parents(labels)
    numbered: dict[int, list[NDArray[np.int32]]] = {}
    tables: dict[int, list[NDArray[np.int64]]] = {}
    box = find_box(probabilities_RDHW.max(axis=0) >= np.float32(GRID[0]))
    for region in outermost_first(labels):
        inside_DHW, true_DHW = probabilities_RDHW[region][box], regions_RDHW[region][box]
        around = None if (parent := parents[region]) is None else numbered[parent]
        maps = [_number(inside_DHW >= np.float32(threshold)) for threshold in GRID]
        tables[region] = [_tabulate(region, step, each, true_DHW, around) for step, each in enumerate(maps)]
        if region in parents:
            numbered[region] = maps
    rows = [table for region in sorted(tables) for table in tables[region]]
    return CaseEvidence(
        case_id=case_id,
        subject=subject,
        voxel_mm3=voxel_mm3,
        true_R=regions_RDHW.reshape(len(labels), -1).sum(axis=1, dtype=np.int64),
        components_CX=np.concatenate(rows),
    )


class Evidence:
    """The counts of cases, which score any decision whose thresholds are on the grid.

    `labels` are those of each region. Raises ValueError where there is no case.
    """

    def __init__(self, cases: Sequence[CaseEvidence], labels: RegionLabels) -> None:
        if not cases:
            raise ValueError("wanted the evidence of one case or more, got none")
        self.labels = labels
        self.cases = tuple(sorted(cases, key=lambda case: case.case_id))
        self.subjects = tuple(dict.fromkeys(case.subject for case in self.cases))
        self.subject_N = np.array([self.subjects.index(case.subject) for case in self.cases])
        self.true_NR = np.stack([case.true_R for case in self.cases])
        self._voxel_mm3_N = np.array([case.voxel_mm3 for case in self.cases])
        table_CX = np.concatenate([case.components_CX for case in self.cases])
        self._case_C = np.repeat(np.arange(len(self.cases)), [len(case.components_CX) for case in self.cases])
        self._voxels_C, self._hits_C = table_CX[:, _VOXELS], table_CX[:, _HITS]
        self._mm3_C = self._voxels_C * self._voxel_mm3_N[self._case_C]
        self._rows = [
            [
                np.flatnonzero((table_CX[:, _REGION] == region) & (table_CX[:, _STEP] == step))
                for step in range(len(GRID))
            ]
            for region in range(len(labels))
        ]
        self._around_CT = self._rows_around(table_CX)
        self._known: dict[tuple[Decision, Objective], NDArray[np.float64]] = {}

    def scores(self, decision: Decision, objective: Objective) -> NDArray[np.float64]:
        """Float64 (N, R): what each case scores under the decision; 1 where a region is empty in truth and decision.

        Raises ValueError for a threshold that is not on the grid.
        """
        if (decision, objective) not in self._known:
            hits_NR, predicted_NR = self._count(decision)
            both_NR = predicted_NR + self.true_NR
            above, below = (hits_NR, both_NR - hits_NR) if objective == "iou" else (2 * hits_NR, both_NR)
            self._known[decision, objective] = np.where(below == 0, 1.0, above / np.maximum(below, 1))
        return self._known[decision, objective]

    def case_scores(self, number: int, decision: Decision) -> dict[str, tuple[float, ...]]:
        """Of one case, by its number, the IoU and the Dice of each region under the decision."""
        kinds: tuple[Objective, ...] = ("iou", "dice")
        return {kind: tuple(self.scores(decision, kind)[number].tolist()) for kind in kinds}

    def encode(self) -> bytes:
        """As an .npz file, without pickles."""
        file = io.BytesIO()
        lengths = [len(case.components_CX) for case in self.cases]
        np.savez_compressed(
            file,
            grid=np.array(GRID),
            labels=np.concatenate([np.array([*labels, 0]) for labels in self.labels]),  # a 0 ends each region's
            case_ids=np.array([case.case_id for case in self.cases]),
            subjects=np.array([case.subject for case in self.cases]),
            voxel_mm3=self._voxel_mm3_N,
            true=self.true_NR,
            lengths=np.array(lengths),
            components=np.concatenate([case.components_CX for case in self.cases]),
        )
        return file.getvalue()

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """The inverse of `encode`. Raises ValueError for another grid."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            if tuple(file["grid"]) != GRID:
                raise ValueError(f"wanted evidence at {GRID}, got {tuple(file['grid'])}")
            tables = np.split(file["components"], np.cumsum(file["lengths"])[:-1])
            regions = np.split(file["labels"], np.flatnonzero(file["labels"] == 0)[:-1] + 1)
            rows = zip(file["case_ids"], file["subjects"], file["voxel_mm3"], file["true"], tables, strict=True)
            cases = [
                CaseEvidence(
                    case_id=str(case_id),
                    subject=str(subject),
                    voxel_mm3=float(voxel_mm3),
                    true_R=true_R,
                    components_CX=table_CX,
                )
                for case_id, subject, voxel_mm3, true_R, table_CX in rows
            ]
            return cls(cases, tuple(tuple(int(label) for label in region if label) for region in regions))

    def _rows_around(self, table_CX: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each component and threshold the row of the component around it, -1 where there is none."""
        around_CT = np.full((len(table_CX), len(GRID)), -1)
        for region, parent in enumerate(find_parents(self.labels)):
            if parent is None:
                continue
            own = np.concatenate(self._rows[region])
            for step, rows in enumerate(self._rows[parent]):
                first_N = np.searchsorted(self._case_C[rows], np.arange(len(self.cases)))
                number = table_CX[own, _AROUND + step]
                known = number > 0
                around_CT[own[known], step] = rows[first_N[self._case_C[own[known]]] + number[known] - 1]
        return around_CT

    def _count(self, decision: Decision) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hits and predicted voxels, each (N, R)."""
        cases, parents, tumour = len(self.cases), find_parents(self.labels), find_tumour(self.labels)
        steps = [_step_of(threshold) for threshold in decision.thresholds]
        hits_NR, predicted_NR = np.zeros((2, cases, len(self.labels)), np.int64)
        kept_C = np.zeros(len(self._case_C), dtype=bool)
        for region in outermost_first(self.labels):
            rows = self._rows[region][steps[region]]
            case, mm3 = self._case_C[rows], self._mm3_C[rows]
            kept = mm3 >= decision.smallest[region] * ROUNDING
            if (parent := parents[region]) is not None:
                around = self._around_CT[rows, steps[parent]]
                # What lies in none is around itself: it would be one of the components there.
                alone = (mm3 >= decision.smallest[parent] * ROUNDING) & (
                    not (decision.largest_tumour_only and parent == tumour)
                )
                kept &= np.where(around >= 0, kept_C[around], alone)
            if decision.largest_tumour_only and region == tumour:
                kept &= _is_first_largest(np.where(kept, self._voxels_C[rows], 0), case, cases)
            if decision.empty_below[region] > 0:
                left_mm3 = np.bincount(case[kept], self._voxels_C[rows][kept], cases) * self._voxel_mm3_N
                kept &= (left_mm3 >= decision.empty_below[region] * ROUNDING)[case]
            kept_C[rows] = kept
            hits_NR[:, region] = np.bincount(case[kept], self._hits_C[rows][kept], cases)
            predicted_NR[:, region] = np.bincount(case[kept], self._voxels_C[rows][kept], cases)
        return hits_NR, predicted_NR


def _number(mask_DHW: NDArray[np.bool_]) -> NDArray[np.int32]:
    numbers_DHW = np.zeros(mask_DHW.shape, np.int32)
    numbers, box = number_components(mask_DHW)
    numbers_DHW[box] = numbers
    return numbers_DHW


def _tabulate(
    region: int,
    step: int,
    numbers_DHW: NDArray[np.int32],
    true_DHW: NDArray[np.bool_],
    around: Sequence[NDArray[np.int32]] | None,
) -> NDArray[np.int64]:
    where = np.flatnonzero(numbers_DHW)
    numbers = numbers_DHW.ravel()[where]
    count = int(numbers.max(initial=0))
    table_CX = np.zeros((count, _AROUND + len(GRID)), np.int64)
    table_CX[:, _REGION], table_CX[:, _STEP] = region, step
    table_CX[:, _VOXELS] = np.bincount(numbers, minlength=count + 1)[1:]
    table_CX[:, _HITS] = np.bincount(numbers[true_DHW.ravel()[where]], minlength=count + 1)[1:]
    for column, numbers_around_DHW in enumerate(around or ()):
        outer = numbers_around_DHW.ravel()[where]
        table_CX[numbers[outer > 0] - 1, _AROUND + column] = outer[outer > 0]
    return table_CX


def _step_of(threshold: float) -> int:
    """The place of a threshold on the grid, to half precision's digits: saved ones were float32 once."""
    for step, known in enumerate(GRID):
        if abs(known - threshold) < 1e-6:
            return step
    raise ValueError(f"threshold {threshold} isn't one of {GRID}")


def _is_first_largest(size_C: NDArray[np.int64], case_C: NDArray[np.int64], cases: int) -> NDArray[np.bool_]:
    """Whether each component is the largest of its case, of equals the first; cases are sorted."""
    largest_N = np.zeros(cases, np.int64)
    np.maximum.at(largest_N, case_C, size_C)
    candidates = np.flatnonzero((size_C == largest_N[case_C]) & (size_C > 0))
    _, first = np.unique(case_C[candidates], return_index=True)
    is_first: NDArray[np.bool_] = np.isin(np.arange(len(size_C)), candidates[first])
    return is_first
