"""Whole held-out cases through sliding-window inference, split over the ranks, each case once.

Shapes: M modality, R region, D H W voxels (z y x).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from dali_pipelines import OnBadCase, Volume, VolumeLoader
from models import (
    CaseEvidence,
    Decision,
    Evidence,
    Network,
    Objective,
    Precision,
    RegionScores,
    ThresholdCounts,
    count_evidence,
    mean_interval,
    sliding_window_probabilities,
)
from models.device_setup import varying_shapes
from ray_jobs.evaluation.baseline import SingleModalityBaseline, best_single_modality_iou
from ray_jobs.evaluation.case_image import CaseImage, keep_image
from ray_jobs.on_ray.session import Session, from_every_rank
from ray_jobs.settings.groups import ValidationConfig
from ray_jobs.settings.objective import RULES
from storage import DecodedCaseCache, Frame, InputError, Region, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdCurves:
    """IoU and Dice of each region (R) at every threshold (T) of the grid, by plain rules; `regions` are their names."""

    regions: tuple[str, ...]
    thresholds_T: NDArray[np.float32]
    iou_TR: NDArray[np.float64]
    dice_TR: NDArray[np.float64]

    def of(self, objective: Objective) -> NDArray[np.float64]:
        """The curves of this score."""
        return self.iou_TR if objective == "iou" else self.dice_TR

    def to_json(self) -> dict[str, Any]:
        """Return the grid and each region's curves as lists, to seven digits."""
        curves: dict[str, Any] = {"rules": RULES, "thresholds": _rounded(self.thresholds_T)}
        for kind, values_TR in (("iou", self.iou_TR), ("dice", self.dice_TR)):
            curves[kind] = {region: _rounded(values_TR[:, index]) for index, region in enumerate(self.regions)}
        return curves

    @classmethod
    def from_json(cls, curves: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        regions = tuple(curves["iou"])
        iou_TR, dice_TR = (np.array([curves[kind][region] for region in regions]).T for kind in ("iou", "dice"))
        return cls(
            regions=regions, thresholds_T=np.array(curves["thresholds"], np.float32), iou_TR=iou_TR, dice_TR=dice_TR
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one set of cases over all ranks, by plain rules, and the images that this rank was asked to keep."""

    cases: int
    regions: tuple[Region, ...]
    scores: RegionScores
    thresholds: Mapping[str, float]
    curves: ThresholdCurves
    objective: Objective = "iou"
    thresholds_given: bool = False
    bad_cases: Mapping[str, str] = dataclasses.field(default_factory=dict)  # left out: case to reason
    images: tuple[CaseImage, ...] = ()
    baseline_iou: Mapping[str, float] | None = None
    by_case: Mapping[str, RegionScores] = dataclasses.field(default_factory=dict)
    by_case_at_half: Mapping[str, RegionScores] = dataclasses.field(default_factory=dict)
    """As `by_case`, by the plain decision: 0.5 for every region and all kept, which nobody chose."""
    plain: RegionScores | None = None  # their mean
    evidence: Evidence | None = None  # where it was asked for
    subjects: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def decision(self) -> Decision:
        """The thresholds, with all kept."""
        return Decision(thresholds=tuple(self.thresholds.values()))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the score of many more such subjects lies, with 95 % confidence; None of fewer than two."""
        of_subject: dict[str, list[float]] = {}
        for case_id, scores in self.by_case.items():
            of_subject.setdefault(self.subjects.get(case_id, case_id), []).append(scores.mean(self.objective))
        return mean_interval([sum(scores) / len(scores) for scores in of_subject.values()])

    @property
    def score(self) -> float:
        """What is maximised: the mean over the regions."""
        return self.scores.mean(self.objective)

    def summary(self) -> dict[str, Any]:
        """Return what `summary.json` says of these cases."""
        return {
            "cases": self.cases,
            "bad_cases": dict(self.bad_cases),
            "iou": self._by_region(self.scores.iou),
            "dice": self._by_region(self.scores.dice),
            "threshold": dict(self.thresholds),
            "interval": self.interval,
            "plain": self.plain and {"iou": self._by_region(self.plain.iou), "dice": self._by_region(self.plain.dice)},
            "by_case": self._each(self.by_case),
            "by_case_at_half": self._each(self.by_case_at_half),
        }

    @property
    def metrics(self) -> dict[str, float]:
        """The summary as flat names: `iou_` and each region's name, `iou_mean`, `dice_` …, `threshold_` …."""
        parts = self.summary()
        return {f"{kind}_{name}": value for kind in ("iou", "dice", "threshold") for name, value in parts[kind].items()}

    def _each(self, cases: Mapping[str, RegionScores]) -> dict[str, dict[str, dict[str, float]]]:
        return {
            case_id: {"iou": self._by_region(scores.iou), "dice": self._by_region(scores.dice)}
            for case_id, scores in cases.items()
        }

    def _by_region(self, values: Sequence[float]) -> dict[str, float]:
        named = dict(zip(self.curves.regions, (float(value) for value in values), strict=True))
        return {**named, "mean": sum(named.values()) / len(named)}


@dataclasses.dataclass(frozen=True, eq=False)
class CaseEvaluator:
    """Predicts whole cases with a network trained on patches or slices; `window` is their shape."""

    model: Network
    window: tuple[int, ...]
    config: ValidationConfig
    precision: Precision
    as_nnunet: bool = dataclasses.field(default=False, kw_only=True)

    def probabilities(self, image_MDHW: torch.Tensor, *, outside_M: tuple[float, ...] | None = None) -> torch.Tensor:
        """Return probabilities_RDHW in float32, on the image's device.

        `outside_M` is as in Volume: where it is given no voxel is background, and `head_only` does nothing.
        """
        dimensions = len(self.window)
        axes = range(3 - dimensions, 3)  # a 2-D network sees slices, and never z
        whole = self.model.config.round_up_sides(image_MDHW.shape[-dimensions:])
        with varying_shapes() if self.config.whole else nullcontext():
            probabilities_RDHW = sliding_window_probabilities(
                self._finest_logits,
                image_MDHW,
                window=whole if self.config.whole else self.window,
                overlap=self.config.overlap,
                batch_size=self.config.window_batch,
                mirror_axes=tuple(axes) if self.config.mirror else (),
                outside=outside_M,
                as_nnunet=self.as_nnunet,
            )
        if self.config.head_only and outside_M is None:
            probabilities_RDHW.masked_fill_((image_MDHW == 0).all(dim=0), 0.0)
        return probabilities_RDHW

    def _finest_logits(self, image: torch.Tensor) -> torch.Tensor:
        with self.precision.autocast(image.device):
            return self.model(image)[0]


@torch.inference_mode()
def evaluate(
    evaluator: CaseEvaluator,
    cache: DecodedCaseCache,
    case_ids: Sequence[str],
    session: Session,
    *,
    normalisation: Literal["zscore", "minmax"],
    frame: Frame,
    objective: Objective = "iou",
    thresholds: Mapping[str, float] | None = None,
    keep_images: int = 0,
    with_baseline: bool = False,
    with_evidence: bool = False,
    on_bad_case: OnBadCase = "raise",
) -> Evaluation:
    """Score `case_ids` at `thresholds`, or by the plain decision, in one pass over the cases.

    With on_bad_case="skip" cases that cannot be read are named and left out; InputError where that leaves none.
    Every rank must call it; each predicts its share and all return the same scores. `keep_images` is how many of its
    own cases a rank returns with their predictions. `with_evidence` also counts what any decision can be scored by,
    on the CPU.
    """
    own, kept = list(case_ids)[session.rank :: session.world_size], _Kept(cache, session, images=keep_images)
    if with_baseline:
        modalities = len(cache.store.settings.modalities)
        kept.baseline = SingleModalityBaseline(session.device, modalities, len(cache.task.regions))
    volumes = VolumeLoader(
        cache, own, device=str(session.device), normalisation=normalisation, frame=frame, on_bad_case=on_bad_case
    )
    for volume in volumes:
        if volume.regions_RDHW is None:
            raise InputError(f"case {volume.case_id} has no label: it can be predicted, not scored")
        probabilities_RDHW = evaluator.probabilities(volume.image_MDHW, outside_M=volume.outside_M)
        kept.take(volume, volume.regions_RDHW, probabilities_RDHW, with_evidence=with_evidence)
    baselines = kept.baseline.counts if kept.baseline else []
    counts, *single_modality = merge_over_ranks([kept.counts, *baselines], session)
    bad = {case_id: why for rank in from_every_rank(volumes.bad_cases, session) for case_id, why in rank.items()}
    if len(bad) == len(case_ids):
        raise InputError(f"none of the {len(bad)} cases to score can be read; the last: {[*bad.values()][-1]}")
    task, plain, given = cache.task, Decision.plain(len(cache.task.regions)), thresholds is not None
    thresholds = thresholds or dict(zip(task.region_names, plain.thresholds, strict=True))
    scores, by_case = counts.at(cut := list(thresholds.values())), counts.by_case(cut)
    return Evaluation(
        cases=len(case_ids) - len(bad),
        regions=task.regions,
        objective=objective,
        thresholds_given=given,
        bad_cases=bad,
        scores=scores,
        by_case=by_case,
        by_case_at_half=counts.by_case(plain.thresholds) if given else by_case,
        thresholds=thresholds,
        curves=curves_of(counts, task.region_names),
        images=tuple(kept.images),
        baseline_iou=best_single_modality_iou(single_modality, task.region_names) if single_modality else None,
        plain=counts.at(plain.thresholds) if given else scores,
        evidence=join_evidence(kept.evidence, task, session) if with_evidence else None,
        subjects={case_id: cache.info(case_id).subject for case_id in counts.case_ids},
    )


class _Kept:
    """What a rank keeps of the cases that it predicts."""

    def __init__(self, cache: DecodedCaseCache, session: Session, *, images: int) -> None:
        self._cache, self._most_images = cache, images
        self.counts = ThresholdCounts(num_regions=len(cache.task.regions), device=session.device)
        self.baseline: SingleModalityBaseline | None = None
        self.evidence: list[CaseEvidence] = []
        self.images: list[CaseImage] = []

    def take(
        self, volume: Volume, regions_RDHW: torch.Tensor, probabilities_RDHW: torch.Tensor, *, with_evidence: bool
    ) -> None:
        """Count a case, and keep its image while there are few."""
        info, regions = self._cache.info(volume.case_id), self._cache.task.regions
        self.counts.update(volume.case_id, probabilities_RDHW, regions_RDHW)
        if self.baseline is not None:
            self.baseline.update(volume)
        if with_evidence:
            self.evidence.append(
                count_evidence(
                    info.case_id,
                    info.subject,
                    probabilities_RDHW.cpu().numpy(),
                    regions_RDHW.cpu().numpy() != 0,
                    tuple(region.labels for region in regions),
                    voxel_mm3=math.prod(info.spacing),
                )
            )
        if len(self.images) < self._most_images:
            modalities = self._cache.store.settings.modalities
            self.images.append(keep_image(volume, modalities, regions, probabilities_RDHW, info.spacing))


def join_evidence(own: Sequence[CaseEvidence], task: Task, session: Session) -> Evidence:
    """Return the evidence of all ranks' cases; the same on every rank."""
    every = [case for rank in from_every_rank(list(own), session) for case in rank]
    return Evidence(every, tuple(region.labels for region in task.regions))


def merge_over_ranks(own: list[ThresholdCounts], session: Session) -> list[ThresholdCounts]:
    """Return each of `own` with the counts of all ranks' cases added; the same on every rank."""
    if session.world_size == 1:
        return own
    states = from_every_rank([counts.state() for counts in own], session)
    merged, *others = [[ThresholdCounts.from_state(state) for state in rank] for rank in states]
    for other in others:
        for counts, more in zip(merged, other, strict=True):
            counts.merge(more)
    return merged


def curves_of(counts: ThresholdCounts, regions: Sequence[str]) -> ThresholdCurves:
    """Return the curves of all cases counted."""
    iou_TR, dice_TR = (curve.cpu().numpy() for curve in counts.curves())
    return ThresholdCurves(
        regions=tuple(regions), thresholds_T=counts.thresholds.cpu().numpy(), iou_TR=iou_TR, dice_TR=dice_TR
    )


def _rounded(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 7) for value in values]
