"""Segmentations by the names of their cases, and each prediction with its label, by names alone.

A segmentation is called after its case: `X_seg.nii.gz`, `X/seg.nii.gz`, `X_pred.nii.gz`, or just `X.nii.gz`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from storage.errors import Refusal
from storage.scans.listing import Listing, ScanFile
from storage.scans.naming import is_nifti_name, nifti_stem, parse_name

Side = Literal["prediction", "label"]
_OTHER: dict[Side, Side] = {"prediction": "label", "label": "prediction"}

# How people end a file's name behind that of its case.
_ENDINGS: dict[Side, str] = {
    "prediction": r"pred(?:s|iction|ictions|icted)?|output|result|ensemble",
    "label": r"truth|true|gt|ground[-_]?truth|labels?|reference|ref|manual",
}
_NAME_THEM = "call each prediction like its case"


@dataclass(frozen=True, kw_only=True)
class NamedPairs:
    """The prediction of each label that has one, by the label's name, and what has no partner or more than one."""

    pairs: Mapping[str, ScanFile]
    refused: Sequence[Refusal]


def find_segmentations(listing: Listing, side: Side) -> dict[str, list[ScanFile]]:
    """The segmentations of a source by their case's name, those of one name in order of their paths.

    Files whose ending says what they are come first: where there is one, bare names are no segmentations (scans lie
    beside labels, probabilities beside predictions).
    """
    found: dict[int, dict[str, list[ScanFile]]] = defaultdict(lambda: defaultdict(list))
    for folder in listing.top.walk():
        for name, file in folder.files.items():
            said = _read_name(name, side) if is_nifti_name(name) else None
            if said is not None:
                case, rank = said
                found[rank][case or folder.path.name].append(file)
    return dict(found[min(found)]) if found else {}


def _read_name(name: str, side: Side) -> tuple[str, int] | None:
    """The case's name, empty where the folder has it, and how well the file's own says what it is: 0 is best.

    None for what is a scan, or the other side's.
    """
    stem, rank = nifti_stem(name), 2
    while True:
        parsed = parse_name(stem)
        if parsed is not None and (parsed.role != "label" or parsed.second):
            return None
        if parsed is not None:
            stem, rank = parsed.case_id or "", min(rank, 1)
            continue
        if _cut(stem, _OTHER[side]) is not None:
            return None
        cut = _cut(stem, side)
        if cut is None:
            return stem, rank
        stem, rank = cut, 0


def _cut(stem: str, side: Side) -> str | None:
    """What stands before an ending of that side, None where there is none."""
    match = re.fullmatch(rf"(?:(.*?)[-_.])?(?:{_ENDINGS[side]})", stem, re.IGNORECASE)
    return None if match is None else match[1] or ""


def pair_by_name(predictions: Mapping[str, Sequence[ScanFile]], labels: Collection[str]) -> NamedPairs:
    """Each prediction with the label of its name, or of the one name that is a part of the other's.

    `00057-001` and `team_BraTS-GLI-00057-001` both are `BraTS-GLI-00057-001`'s where no other label fits.
    """
    wanted: dict[str, list[ScanFile]] = defaultdict(list)
    refused = []
    for name, files in predictions.items():
        fitting = _labels_named(name, labels)
        if len(fitting) == 1:
            wanted[fitting[0]] += files
            continue
        which = ", ".join(sorted(fitting)[:3])
        finding = f"its name fits several labels: {which}" if fitting else f"none of {len(labels)} labels has its name"
        refused.append(Refusal(case_id=name, file=str(files[0]), finding=finding, remedy=_NAME_THEM))
    for label, files in wanted.items():
        if len(files) > 1:
            finding = f"{len(files)} predictions have its name: {files[0]}, {files[1]}{' …' * (len(files) > 2)}"
            refused.append(Refusal(case_id=label, file="", finding=finding, remedy="keep one of them"))
    refused += [
        Refusal(case_id=label, file="", finding="no prediction has its name", remedy=_NAME_THEM)
        for label in labels
        if label not in wanted
    ]
    pairs = {label: wanted[label][0] for label in labels if len(wanted.get(label, ())) == 1}
    return NamedPairs(pairs=pairs, refused=refused)


def _labels_named(name: str, labels: Collection[str]) -> list[str]:
    """The labels that a prediction may be of: the one of its name; else the longest within it; else those around it."""
    if name in labels:
        return [name]
    same = [label for label in labels if label.casefold() == name.casefold()]
    within = [label for label in labels if _holds(name, label)]
    longest = [label for label in within if not any(other != label and _holds(other, label) for other in within)]
    return same or longest or [label for label in labels if _holds(label, name)]


def _holds(name: str, part: str) -> bool:
    """Whether `part` stands in `name` between separators."""
    name, part = name.casefold(), part.casefold()
    return part in name and re.search(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", name) is not None
