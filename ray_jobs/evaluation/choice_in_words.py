"""A decision and how it was chosen, as summaries say it. No PyTorch: a cross-validation's driver says it too."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from models import Choice, Objective, Taken
from models.choice import CONFIDENCE, FEWEST_SUBJECTS
from ray_jobs.evaluation.decision_file import encode_decision
from ray_jobs.settings.objective import SCORE_NAMES

KINDS = {
    "threshold": "{region} from {value:g} on",
    "smallest mm3": "components of {region} below {value:g} mm3 left out",
    "empty below mm3": "{region} empty below {value:g} mm3 in all",
    "largest tumour only": "the largest tumour alone",
}


def describe_choice(choice: Choice, names: Sequence[str]) -> dict[str, Any]:
    """Return the decision as JSON, with what was taken by what evidence, and for which regions there was none."""
    taken = [
        {**dataclasses.asdict(each), "region": "all" if each.region is None else names[each.region]}
        for each in choice.taken
    ]
    unseen = [names[region] for region in choice.unseen]
    return encode_decision(choice.decision, names) | {"taken": taken, "unseen": unseen}


def say_choice(choice: Choice, names: Sequence[str], objective: Objective, subjects: int) -> list[str]:
    """Return a line for each rule that was taken, or why none was, and what no case could say."""
    said = [say_taken(taken, names, objective) for taken in choice.taken]
    if subjects < FEWEST_SUBJECTS:
        said = [f"Decision: plain (0.5, all is kept); nothing is chosen by fewer than {FEWEST_SUBJECTS} subjects."]
    elif not said:
        said = [f"Decision: plain (0.5, all is kept); no rule beat it by more than chance on {subjects} subjects."]
    if choice.unseen:
        unseen = ", ".join(names[region] for region in choice.unseen)
        said.append(f"No validation case has {unseen}: there 0.5 stays, and nothing is left out.")
    return said


def say_taken(taken: Taken, names: Sequence[str], objective: Objective) -> str:
    """Return a rule in words, with its evidence."""
    region = "all regions" if taken.region is None else names[taken.region]
    return (
        f"Decision: {KINDS[taken.kind].format(region=region, value=taken.value)}; {SCORE_NAMES[objective]} "
        f"{taken.gain:+.3f} on cases that did not choose it, more than {taken.at_least:+.3f} with {CONFIDENCE:.0%} "
        f"confidence ({taken.better} better, {taken.worse} worse)."
    )


def say_trust(interval: tuple[float, float] | None, objective: Objective, subjects: int) -> str:
    """Return how far the score of so few subjects can be trusted."""
    score = SCORE_NAMES[objective]
    if interval is None:
        return f"One validation subject says nothing of how far its {score} is from that of others."
    return (
        f"What {subjects} validation subjects say of many more such: mean {score} {interval[0]:.3f} to "
        f"{interval[1]:.3f} (95 %); the epoch was chosen on them."
    )
