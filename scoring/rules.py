"""What the organisers' programs of each year count with, as data: which regions of which tasks, and their numbers.

The programs are named in docs/scores.md, with what each does that a reader would not expect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from storage.labels.tasks import GLIOMA_REGIONS, GTV_REGIONS, PAEDIATRIC_REGIONS, POST_TREATMENT_REGIONS, TASKS, Task

RulesName = Literal["2023", "2024", "2025", "2026", "plain"]
"""Whose rules: the organisers' of a year, or plain ones, which count voxels alone."""
RULES_NAMES: tuple[RulesName, ...] = ("2023", "2024", "2025", "2026", "plain")
"""All of them."""


@dataclass(frozen=True, kw_only=True)
class NearRules:
    """The rules of 2023 to 2025 for one region: lesions that a dilation joins are one, and are found by what is near.

    dilation: voxels. smallest_mm3: lesions of the truth of at most this volume are not scored. penalty_mm: the HD95 of
    a lesion that was missed or is false; None is the diagonal of the grid, counted in voxels.
    """

    dilation: int
    smallest_mm3: float
    penalty_mm: float | None = 374.0
    joins_predicted: bool = False
    """Whether predicted components are joined as the truth's are, and dropped when small."""
    smallest_predicted: float = 0.0
    """Predicted lesions of at most so many voxels are dropped."""
    smallest_predicted_is_volume: bool = False
    """Whether that is in mm³ after all."""
    scores_false_ones: bool = True
    """Whether false lesions lower the means, or are only counted."""
    joined_through: tuple[str, ...] = ()
    """Regions through whose lesions those of this one are joined, one after the other."""
    tolerances_mm: tuple[float, ...] = ()
    """The distances at which surface Dice is counted."""


@dataclass(frozen=True, kw_only=True)
class MatchedRules:
    """The rules of 2026 for one region: components are matched one to one."""

    large_mm3: float | None = None
    """From which volume on a lesion is large, where small and large ones are scored apart."""


_GLIOMA = tuple(region.name for region in GLIOMA_REGIONS)
_POST_TREATMENT = tuple(region.name for region in POST_TREATMENT_REGIONS)
_PAEDIATRIC = tuple(region.name for region in PAEDIATRIC_REGIONS)
_MENINGIOMA = tuple(region.name for region in GTV_REGIONS)
_WHOLE, _CORE, _ENHANCING, _NETC, _SNFH, _CAVITY = _POST_TREATMENT
_ADULT_GLIOMA = ("gli-2021", "gli-2023", "gli-2013", "msd", "upenn-gbm", "ucsf-pdgm")

NearTasks = dict[str, dict[str, NearRules]]
"""By the names of a task and of a region."""


def _rules_2023() -> NearTasks:
    wide, narrow = NearRules(dilation=3, smallest_mm3=50), NearRules(dilation=1, smallest_mm3=50)
    mets = dict.fromkeys(_GLIOMA, replace(narrow, smallest_mm3=2))
    return {
        **dict.fromkeys((*_ADULT_GLIOMA, "gli-2024", "ssa", "ped-2023"), dict.fromkeys(_GLIOMA, wide)),
        "men": dict.fromkeys(_GLIOMA, narrow),
        "met-2023": mets,
        "met-2024": mets,
    }


def _joining(*, dilation: int, floor: int, penalty_mm: float | None = 374.0) -> NearRules:
    return NearRules(
        dilation=dilation, smallest_mm3=floor, penalty_mm=penalty_mm, joins_predicted=True, smallest_predicted=floor
    )


def _post_treatment() -> dict[str, NearRules]:
    """Adult glioma's. A slip of the pen keeps SNFH at a dilation of 3, where 5 was meant."""
    rules = _joining(dilation=3, floor=20, penalty_mm=337.0)
    wide = replace(rules, dilation=5)
    return {
        _WHOLE: rules,
        _CORE: rules,
        _ENHANCING: replace(rules, smallest_mm3=10, smallest_predicted=10, joined_through=(_NETC, _CAVITY)),
        _NETC: replace(wide, joined_through=(_ENHANCING, _CAVITY)),
        _SNFH: replace(rules, joined_through=(_ENHANCING, _CAVITY, _NETC)),
        _CAVITY: replace(wide, joined_through=(_ENHANCING, _NETC)),
    }


def _enhancing_joined(rules: NearRules) -> dict[str, NearRules]:
    return {_WHOLE: rules, _CORE: rules, _ENHANCING: replace(rules, joined_through=(_NETC,))}


def _rules_2024() -> NearTasks:
    mets = _enhancing_joined(_joining(dilation=1, floor=2))
    meningioma = replace(
        _joining(dilation=1, floor=50, penalty_mm=None), smallest_predicted_is_volume=True, scores_false_ones=False
    )
    return {
        **dict.fromkeys((*_ADULT_GLIOMA, "gli-2024"), _post_treatment()),
        "ssa": _enhancing_joined(_joining(dilation=3, floor=50)),
        "met-2023": mets,
        "met-2024": mets,
        "ped-2024": dict.fromkeys(_PAEDIATRIC, _joining(dilation=5, floor=10)),
        "men-rt": dict.fromkeys(_MENINGIOMA, meningioma),
    }


def _rules_2025() -> NearTasks:
    """2024's with surface Dice; metastases with another penalty and with cavities; meningioma as in 2023."""
    mets = _joining(dilation=1, floor=2, penalty_mm=None)
    tasks = {
        **_rules_2024(),
        "met-2023": _enhancing_joined(mets),
        "met-2024": _enhancing_joined(mets) | {_CAVITY: mets},
        "men": _rules_2023()["men"],
    }
    return {
        task: {name: replace(rules, tolerances_mm=(0.5, 1.0)) for name, rules in of_task.items()}
        for task, of_task in tasks.items()
    }


def _rules_2026() -> dict[str, dict[str, MatchedRules]]:
    every, mets = MatchedRules(), MatchedRules(large_mm3=20)
    return {
        **dict.fromkeys((*_ADULT_GLIOMA, "gli-2024"), dict.fromkeys(_POST_TREATMENT, every)),
        **dict.fromkeys(("ssa", "men", "goat"), dict.fromkeys(_GLIOMA, every)),
        "met-2023": dict.fromkeys(_GLIOMA, mets),
        "met-2024": dict.fromkeys((*_GLIOMA, _CAVITY), mets),
        "ped-2024": dict.fromkeys(_PAEDIATRIC, every),
        "men-rt": dict.fromkeys(_MENINGIOMA, every),
    }


# Of the first year in which a task's cases were called so; those of before 2023 had no lesions, and other collections
# have no rules.
_DEFAULT: Mapping[str, RulesName] = {
    **dict.fromkeys(("gli-2023", "ssa", "men", "met-2023", "ped-2023"), "2023"),
    **dict.fromkeys(("gli-2024", "met-2024", "ped-2024", "men-rt"), "2024"),
    "goat": "2026",
}

NEAR_RULES: Mapping[RulesName, NearTasks] = {"2023": _rules_2023(), "2024": _rules_2024(), "2025": _rules_2025()}
RULES_2026 = _rules_2026()


def tasks_of(rules: RulesName) -> tuple[str, ...]:
    """The tasks that a year's rules are for; `plain` is for all."""
    if rules == "plain":
        return tuple(TASKS)
    return tuple(RULES_2026 if rules == "2026" else NEAR_RULES[rules])


def default_rules(task: Task) -> RulesName:
    """The rules that a task's cases are scored by where nothing else is said."""
    return _DEFAULT.get(task.name, "plain")


def takes_files_as_they_are(rules: RulesName) -> bool:
    """Whether the program drops values that its task has not, and of headers takes but the sides of voxels."""
    return rules in NEAR_RULES


def title_of(rules: RulesName) -> str:
    """How the rules are called beside a number."""
    return "plain rules" if rules == "plain" else f"the rules of BraTS {rules}"
