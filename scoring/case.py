"""One case's scores by the rules of a year.

Letters in names: D H W voxels z y x.
"""

from collections.abc import Sequence
from functools import cache, partial, reduce

import numpy as np
from numpy.typing import NDArray

from scoring.components import Mask, find_box
from scoring.matched_case import score_matched
from scoring.near_case import score_near
from scoring.plain_case import score_plain
from scoring.rules import NEAR_RULES, RULES_2026, RulesName, tasks_of
from scoring.scores import Scores
from storage.labels.conventions import STORED_LABEL_NAMES
from storage.labels.tasks import GTV_REGIONS, PAEDIATRIC_REGIONS, POST_TREATMENT_REGIONS, Task

Labels = NDArray[np.uint8]

# Programs score regions that a task may not have, and join lesions through them.
_LABELS = {region.name: region.labels for region in (*POST_TREATMENT_REGIONS, *PAEDIATRIC_REGIONS, *GTV_REGIONS)}


def score_case(
    predicted_DHW: Labels, true_DHW: Labels, *, task: Task, rules: RulesName, spacing_mm: Sequence[float]
) -> dict[str, Scores]:
    """Scores of every region that the rules have for the task, by its name.

    Both maps hold stored labels in C order; `spacing_mm` are voxel sides along D, H, W, the prediction's where the
    files disagree. Raises ValueError for maps of two shapes and for a task that the rules do not know.
    """
    if predicted_DHW.shape != true_DHW.shape:
        raise ValueError(f"wanted maps of one shape, got {predicted_DHW.shape} predicted and {true_DHW.shape} true")
    if task.name not in tasks_of(rules) and rules != "plain":
        raise ValueError(f"the rules of {rules} have no task {task.name}; they have {', '.join(tasks_of(rules))}")
    near = NEAR_RULES[rules][task.name] if rules in NEAR_RULES else {}
    margin = max((own.dilation for own in near.values()), default=0)
    box = find_box((predicted_DHW > 0) | (true_DHW > 0), margin)
    predicted, true = predicted_DHW[box], true_DHW[box]
    depth, height, width = (float(side) for side in spacing_mm)
    spacing, grid = (depth, height, width), predicted_DHW.shape
    masks = cache(partial(masks_of, predicted_DHW=predicted, true_DHW=true, task=task))
    if near:
        return score_near(masks, near, spacing_mm=spacing, grid=grid)
    if rules == "2026":
        _refuse_other_labels(predicted, true, task)
        return {
            name: score_matched(*cut_masks(*masks(name)), own, spacing_mm=spacing, grid=grid)
            for name, own in RULES_2026[task.name].items()
        }
    return {name: score_plain(*cut_masks(*masks(name)), spacing_mm=spacing, grid=grid) for name in task.region_names}


def masks_of(region: str, predicted_DHW: Labels, true_DHW: Labels, task: Task) -> tuple[Mask, Mask]:
    """The predicted and the true mask of a region, of the task or of a program."""
    labels = (_LABELS | task.region_labels)[region]
    return is_one_of(predicted_DHW, labels), is_one_of(true_DHW, labels)


def is_one_of(labels_DHW: Labels, wanted: Sequence[int]) -> Mask:
    """`np.isin` for the few labels of a region, in a third of its time."""
    return reduce(np.logical_or, (labels_DHW == label for label in wanted))


def cut_masks(predicted_DHW: Mask, true_DHW: Mask) -> tuple[Mask, Mask]:
    """Both masks within the smallest box that has them."""
    box = find_box(predicted_DHW | true_DHW, 0)
    return predicted_DHW[box], true_DHW[box]


def _refuse_other_labels(predicted_DHW: Labels, true_DHW: Labels, task: Task) -> None:
    """The program of 2026 takes no case with a label that its task has not; those before drop it."""
    for what, labels_DHW in (("prediction", predicted_DHW), ("truth", true_DHW)):
        if others := set(np.flatnonzero(np.bincount(labels_DHW[labels_DHW > 0])).tolist()) - task.labels:
            names = ", ".join(STORED_LABEL_NAMES[label] for label in sorted(others))
            raise ValueError(f"wanted labels of {task.name} alone, as the rules of 2026 do, got {names} in the {what}")
