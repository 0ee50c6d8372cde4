"""What is odd about a cohort and no error: said in one line each, by conversion, training and prediction.

Nothing is guessed or changed for it. Records say nearly all that is needed; voxels are looked at one case at a time.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.cases.info import CaseInfo
from storage.labels.conventions import STORED_LABEL_NAMES
from storage.labels.tasks import Region, Task

# Sides of voxels that differ by more: nnU-Net resamples, and what is learnt at one size does not hold at the other.
FAR_SPACING = 1.5
# Litres that are not 0. Brains have up to 2, heads 4 and more.
MOST_BRAIN = 2.5
# Dice of where two scans of a case are not 0. Of 16 real cases: 0.987 and more; moved by 4 mm 0.955, by 8 mm 0.912.
LEAST_OVERLAP = 0.95

Spacing = tuple[float, float, float]


def cohort_notices(infos: Sequence[CaseInfo], task: Task) -> list[str]:
    """What is odd about these cases of one store, a line each."""
    return [*_about_labels(infos, task), *_about_background(infos, task), *_about_spacing(infos)]


def part_notices(infos: Sequence[CaseInfo], task: Task, part: str, case_ids: Sequence[str]) -> list[str]:
    """What is odd about the cases of one part, that is not odd about all of them."""
    there = never_occurring(infos, task)
    in_part = set(case_ids)
    own = never_occurring([info for info in infos if info.case_id in in_part], task)
    missing = [name for name in own if name not in there]
    if not missing or not case_ids:
        return []
    said = _say_never(missing, f"in the {part} cases")
    return [f"{said}; {_NO_THRESHOLD}" if part == "validation" else said]


def never_occurring(infos: Sequence[CaseInfo], task: Task) -> list[str]:
    """The regions that have no voxel in any labelled case."""
    voxels = _region_voxels(infos, task)
    return [region for region, count in voxels.items() if not count]


def case_notices(info: CaseInfo, task: Task, trained_on: Spacing | None) -> list[str]:
    """What is odd about one case for a network of this task, trained on voxels of this size (None: nobody knows)."""
    odd = _odd_background(info) if task.skull_stripped else None
    found = [] if odd is None else [odd]
    if trained_on is not None and _times(info.spacing, trained_on) > FAR_SPACING:
        found.append(f"voxels are of {_mm(info.spacing)}, the network was trained on {_mm(trained_on)}: resample them")
    return found


def registration_notices(image_MDHW: NDArray[Any], modalities: Sequence[str], task: Task) -> list[str]:
    """The scans of a skull-stripped case whose brain is not where that of any other scan is; image (M, D, H, W)."""
    if not task.skull_stripped:
        return []
    brains = {name: scan[::2, ::2, ::2] != 0 for name, scan in zip(modalities, image_MDHW, strict=True)}
    voxels = {name: np.count_nonzero(brain) for name, brain in brains.items()}
    best = {name: 0.0 for name, count in voxels.items() if count}
    for one, other in itertools.combinations(best, 2):
        dice = 2 * np.count_nonzero(brains[one] & brains[other]) / (voxels[one] + voxels[other])
        best[one], best[other] = max(best[one], dice), max(best[other], dice)
    return [
        f"the brain of {name} is not where the other scans' is (Dice {dice:.2f} at best): it is not registered to "
        "them, or cut off"
        for name, dice in best.items()
        if len(best) > 1 and dice < LEAST_OVERLAP
    ]


def typical_spacing(infos: Iterable[CaseInfo]) -> Spacing | None:
    """The median side of voxels along z, y and x in millimetres; None of no case."""
    sides = [info.spacing for info in infos]
    if not sides:
        return None
    z, y, x = np.median(np.array(sides), axis=0).tolist()
    return z, y, x


_NO_THRESHOLD = "the threshold found for it is one at which none is predicted, unless --thresholds says another"
_NO_BACKGROUND = (
    "no voxel is background: the scans are not skull-stripped, or what lies outside the brain is not 0; "
    "intensities are measured over the whole volume"
)
_TOO_LARGE = (
    f"more than {MOST_BRAIN} litres are not 0, and no brain is so large: the scans are not skull-stripped, as the "
    "task's are"
)


def _about_labels(infos: Sequence[CaseInfo], task: Task) -> list[str]:
    labelled = [info for info in infos if info.labelled]
    if not labelled:
        return []
    voxels, never = _region_voxels(infos, task), never_occurring(infos, task)
    cases = f"in the whole cohort ({len(labelled)} labelled {'case' if len(labelled) == 1 else 'cases'})"
    occurring = _labels_that_occur(voxels, task.regions)
    found = []
    if len(occurring) == 1 and len(task.labels) > 1 and len(never) < len(voxels):
        only = STORED_LABEL_NAMES[occurring.pop()].replace("_", " ")
        found.append(
            f"{only} is the only label {cases}: if these are masks of the whole tumour, a network learns it as {only}; "
            "say what the values mean with --label-map"
        )
    if never:
        found.append(_say_never(never, cases))
    return found


def _say_never(regions: Sequence[str], where: str) -> str:
    return (
        f"{', '.join(regions)} never {'occurs' if len(regions) == 1 else 'occur'} {where}: a network that predicts "
        "none is scored 1.000 for it, which says nothing of it and raises the mean"
    )


def _region_voxels(infos: Sequence[CaseInfo], task: Task) -> dict[str, int]:
    labelled = [info for info in infos if info.labelled]
    return {region: sum(info.region_voxels.get(region, 0) for info in labelled) for region in task.region_names}


def _labels_that_occur(voxels: Mapping[str, int], regions: Sequence[Region]) -> set[int]:
    """The labels that have voxels, as far as the regions' voxels tell: what a region has beyond those within it."""
    found: set[int] = set()
    for region in regions:
        within = [other for other in regions if set(other.labels) < set(region.labels)]
        own = set(region.labels) - {label for other in within for label in other.labels}
        outermost = [other for other in within if not any(set(other.labels) < set(each.labels) for each in within)]
        if own and voxels[region.name] > sum(voxels[other.name] for other in outermost):
            found |= own
    return found


def _about_background(infos: Sequence[CaseInfo], task: Task) -> list[str]:
    odd: dict[str, list[str]] = {}
    for info in infos if task.skull_stripped else ():
        if (said := _odd_background(info)) is not None:
            odd.setdefault(said, []).append(info.case_id)
    return [f"{_some(case_ids)}: {said}" for said, case_ids in odd.items()]


def _about_spacing(infos: Sequence[CaseInfo]) -> list[str]:
    typical = typical_spacing(infos)
    far = [info for info in infos if typical is not None and _times(info.spacing, typical) > FAR_SPACING]
    if typical is None or not far:
        return []
    listed = _some([info.case_id for info in far])
    return [f"{listed}: voxels of {_mm(far[0].spacing)}, most of the cohort's are of {_mm(typical)}; resample them"]


def _odd_background(info: CaseInfo) -> str | None:
    """What is odd about where the scans are 0, as nothing is in a skull-stripped brain of a usual size."""
    if info.brain_voxels >= math.prod(info.original_shape):
        return _NO_BACKGROUND
    if info.brain_voxels * math.prod(info.spacing) > MOST_BRAIN * 1e6:
        return _TOO_LARGE
    return None


def _times(one: Spacing, other: Spacing) -> float:
    """By how many times the sides differ along the axis where they do most."""
    return max(max(a / b, b / a) for a, b in zip(one, other, strict=True))


def _some(case_ids: Sequence[str]) -> str:
    return case_ids[0] if len(case_ids) == 1 else f"{len(case_ids)} cases such as {case_ids[0]}"


def _mm(spacing: Spacing) -> str:
    return " x ".join(f"{side:.3g}" for side in spacing) + " mm"
