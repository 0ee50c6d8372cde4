"""What the labels of an nnU-Net dataset.json mean, by their names; what could be read in two ways is not read at all.

A name is a tissue (edema, NETC, resection cavity …), which is a stored label, or one of the regions whole tumour and
tumour core, which tell the tissue of a value by where it lies: in the whole and not in the core is edema. Regions:
Isensee et al., nnU-Net v2, "region-based training"; names: the BraTS organisers' data descriptions of each year.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from storage.labels.conventions import (
    CYSTIC_COMPONENT,
    EDEMA,
    ENHANCING,
    GROSS_TUMOUR_VOLUME,
    NECROTIC_CORE,
    NON_ENHANCING_TUMOUR,
    RESECTION_CAVITY,
    STORED_LABEL_NAMES,
    LabelConvention,
    custom_convention,
)
from storage.labels.tasks import TASKS, TUMOUR_CORE, WHOLE_TUMOUR, tasks_named

TISSUES_KEY = "tissues"
"""Our own entry of dataset.json, which nnU-Net passes over: the stored label's name of each value."""

_SPELLINGS = (
    (r"tumour", "tumor"),
    (r"oedema", "edema"),
    (r"[^a-z0-9]+", " "),
    (r"\b(?:non ?(?:contrast |gd )?|un)enhanc\w*", "nonenh"),
    (r"\bnonenh(?: t2)? flair(?: signal)? hyperintens\w*", "snfh"),
)
_TISSUES: dict[int, str] = {
    NECROTIC_CORE: r"necro\w*|ncr|net|netc|nonenh",
    EDEMA: r"\w*edema\w*|ed|snfh|hyperintens\w*|invaded",
    ENHANCING: r"enhanc\w*|et|active",
    RESECTION_CAVITY: r"cavity|resection\w*|rc",
    CYSTIC_COMPONENT: r"cyst\w*|cc",
    GROSS_TUMOUR_VOLUME: r"gtv|gross",
}
_REGIONS = {WHOLE_TUMOUR: r"wt|whole\w*|complete\w*", TUMOUR_CORE: r"tc|core|tumorcore"}
_TAKEN_AWAY = r"without|excluding|except|minus|not|no"


class UnclearLabelsError(ValueError):
    """What the labels mean cannot be told by their names; the message says which, and why."""


def convention_by_names(description: Mapping[str, Any], case_ids: Iterable[str]) -> LabelConvention:
    """What each value means by the `labels` of a dataset.json of either version; raises UnclearLabelsError.

    Whose cases they are matters for the non-enhancing tumour, which is a label of its own in children.
    """
    told = description.get(TISSUES_KEY)
    if told is not None:
        return custom_convention(_exact(told))
    tissue_of: dict[int, int] = {}
    regions: dict[str, set[int]] = {}
    unsure: set[int] = set()  # called non-enhancing and nothing more
    for name, values in _entries(description.get("labels")):
        meaning = _meaning(name)
        if meaning is None:
            raise UnclearLabelsError(f"{_written(values)} is called {name!r}, which is no tissue by its name")
        if isinstance(meaning, str):
            regions.setdefault(meaning, set()).update(values)
            continue
        for value in values:
            if tissue_of.setdefault(value, meaning) != meaning:
                raise UnclearLabelsError(f"{value} is called two things, one of them {name!r}")
            if meaning == NECROTIC_CORE and not re.search(r"necro|ncr", name.lower()):
                unsure.add(value)
    unsure |= _place(tissue_of, regions)
    if not set(tissue_of) - {0}:
        raise UnclearLabelsError("no label is listed")
    if CYSTIC_COMPONENT in tissue_of.values():
        tissue_of |= dict.fromkeys(unsure, NON_ENHANCING_TUMOUR)
    elif unsure and _of_children(case_ids):
        raise UnclearLabelsError(
            f"{_written(unsure)} is a non-enhancing tumour in BraTS-PED 2024 and a core in that of 2023"
        )
    labels = set(tissue_of.values())
    if not any(labels <= task.labels for task in TASKS.values()):
        together = ", ".join(STORED_LABEL_NAMES[label] for label in sorted(labels))
        raise UnclearLabelsError(f"no task has these together: {together}")
    return custom_convention(tissue_of)


def _entries(labels: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Name and values of each label but the background: version 1 maps values to names, version 2 names to values."""
    if not isinstance(labels, Mapping):
        raise UnclearLabelsError("no label is listed")
    entries = []
    for key, item in labels.items():
        turned = isinstance(item, str) and not item.isdigit()
        name, given = (item, key) if turned else (key, item)
        try:
            values = tuple(int(value) for value in (given if isinstance(given, list | tuple) else [given]))
        except (TypeError, ValueError):
            raise UnclearLabelsError(f"{key!r}: {item!r} is no label with a value") from None
        if values != (0,) and name.lower() != "ignore":
            entries.append((name, values))
    return entries


def _exact(told: Any) -> dict[int, int]:
    try:
        return {int(value): STORED_LABEL_NAMES.index(name) for value, name in told.items()}
    except (AttributeError, ValueError):
        raise UnclearLabelsError(f"its {TISSUES_KEY} {told!r} are not ours") from None


def _meaning(name: str) -> int | str | None:
    """The stored label that a name stands for, or the region; None where it says none, or too much."""
    text = name.lower()
    for pattern, instead in _SPELLINGS:
        text = re.sub(pattern, instead, text)
    if re.search(rf"\b(?:{_TAKEN_AWAY})\b", text):
        return None
    tissues = [label for label, pattern in _TISSUES.items() if re.search(rf"\b(?:{pattern})\b", text)]
    regions = [region for region, pattern in _REGIONS.items() if re.search(rf"\b(?:{pattern})\b", text)]
    if len(tissues) == 1 and WHOLE_TUMOUR not in regions:
        return tissues[0]
    return regions[0] if len(regions) == 1 and not tissues else None


def _place(tissue_of: dict[int, int], regions: Mapping[str, set[int]]) -> set[int]:
    """Give each value that only regions speak of its tissue; return those of the core, which may be two things.

    Raises UnclearLabelsError where two values would be one, and where regions and tissues contradict each other.
    """
    core, whole = regions.get(TUMOUR_CORE, set()), regions.get(WHOLE_TUMOUR, set())
    for region, values in regions.items():
        usual = {label for task in TASKS.values() for label in task.region_labels.get(region, ())}
        wrong = sorted(value for value, label in tissue_of.items() if (value in values) != (label in usual))
        if wrong:
            tissue = STORED_LABEL_NAMES[tissue_of[wrong[0]]]
            raise UnclearLabelsError(f"{wrong[0]} is called {tissue}, and the values of {region} are {sorted(values)}")
    in_core, around = core - set(tissue_of), whole - core - set(tissue_of)
    for values, found in ((in_core, len(in_core) <= 1), (around, len(around) <= 1 and (core or not around))):
        if not found:
            raise UnclearLabelsError(f"of {_written(values)} only the regions are told, not which is which tissue")
    if in_core and not {ENHANCING, NON_ENHANCING_TUMOUR} & set(tissue_of.values()):
        raise UnclearLabelsError(f"{_written(in_core)} is the whole core, enhancing or not, which is no tissue")
    tissue_of |= dict.fromkeys(in_core, NECROTIC_CORE) | dict.fromkeys(around, EDEMA)
    return in_core


def _of_children(case_ids: Iterable[str]) -> bool:
    return any(NON_ENHANCING_TUMOUR in task.labels for case_id in case_ids for task in tasks_named(case_id))


def _written(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(values)))
