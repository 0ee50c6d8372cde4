"""What is maximised, and whose rules a training's scores follow: said beside every number that is shown or kept."""

from collections.abc import Mapping

from models import Objective as Objective
from scoring import RulesName

RULES: RulesName = "plain"
"""Of IoU and Dice in training, searches and the choice of thresholds."""
SCORES_ARE = f"IoU and Dice by {RULES} rules: means over cases, 1 where label and prediction are empty (docs/scores.md)"
SCORE_NAMES: Mapping[Objective, str] = {"iou": "IoU", "dice": "Dice"}


def describe_best(objective: Objective) -> str:
    """Say what chose the thresholds of a search for them."""
    return f"thresholds of the highest {SCORE_NAMES[objective]}"


def describe_cut(*, given: bool) -> str:
    """Say what a validation is scored at: thresholds `given` by hand, or the plain one."""
    return "thresholds as given" if given else "every region from 0.5 on"
