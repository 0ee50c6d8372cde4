"""Segmentations by the names of their cases, and each prediction with its label, by names alone.

A segmentation is called after its case: `X_seg.nii.gz`, `X/seg.nii.gz`, `X_pred.nii.gz`, or just `X.nii.gz`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from storage.errors import Refusal
from storage.labels.tasks import person_of, tasks_named
from storage.scans.listing import Folder, Listing, ScanFile
from storage.scans.naming import is_nifti_name, nifti_stem, parse_name

Side = Literal["prediction", "label"]
_OTHER: dict[Side, Side] = {"prediction": "label", "label": "prediction"}

# How people end a file's name behind that of its case.
_ENDINGS: dict[Side, str] = {
    "prediction": r"pred(?:s|iction|ictions|icted)?|output|result|ensemble",
    "label": r"truth|true|gt|ground[-_]?truth|labels?|reference|ref|manual",
}
_EITHER = "masks?"
_PROBABILITIES = re.compile(r".*[-_.]prob(?:s|abilities)?", re.IGNORECASE)
# How well a name says that a file is a segmentation: this side's, some segmentation, nothing, the other side's.
_OWN, _SEGMENTATION, _BARE, _OTHERS = range(4)
_SHORTEST_PART = 3  # what is shorter stands in many names by chance
_NAME_THEM = "call each prediction like its case"


@dataclass(frozen=True, kw_only=True)
class Segmentations:
    """Files by their case's name, those of one name in order of their paths, and what was not taken for one."""

    files: Mapping[str, Sequence[ScanFile]]
    passed_over: Mapping[str, ScanFile] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NamedPairs:
    """The prediction of each label that has one, by the label's name, and what has no partner or more than one.

    `inexact` are those that are called otherwise, with the name of the prediction.
    """

    pairs: Mapping[str, ScanFile]
    inexact: Mapping[str, str]
    refused: Sequence[Refusal]


def find_segmentations(listing: Listing, side: Side) -> Segmentations:
    """The segmentations of a source, by their names.

    Of a case's files those count whose ending says most. Bare names count where no scans lie about, or where there is
    nothing else; the other side's where there is nothing else at all.
    """
    found: dict[int, dict[str, list[ScanFile]]] = {rank: defaultdict(list) for rank in range(4)}
    scans = False
    for folder in listing.top.walk():
        read = {name: _read_name(name, side) for name in folder.files if is_nifti_name(name)}
        scans = scans or None in read.values()
        said = {name: each for name, each in read.items() if each is not None}
        for name, (case, rank) in said.items():
            found[rank][_case_of(case, folder, alone=len(said) == 1)].append(folder.files[name])
    best = next((rank for rank in range(4) if found[rank]), _BARE)
    taken = [rank for rank in range(4) if rank == best or (rank < _BARE and best < _BARE)]
    if best < _BARE and not scans:
        taken.append(_BARE)
    files: dict[str, list[ScanFile]] = {}
    for rank in taken:
        for case, of_case in found[rank].items():
            files.setdefault(case, of_case)
    passed = {case: of_case[0] for rank in range(4) if rank not in taken for case, of_case in found[rank].items()}
    return Segmentations(files=files, passed_over={case: file for case, file in passed.items() if case not in files})


def _case_of(case: str, folder: Folder, *, alone: bool) -> str:
    """The case that a file's name says, or its folder's where the file says none, or another's than any task has."""
    own = folder.path.name
    return own if not case or (alone and tasks_named(own) and not tasks_named(case)) else case


def _read_name(name: str, side: Side) -> tuple[str, int] | None:
    """The case's name, empty where the folder has it, and how well the file's own says what it is.

    None for what is a scan, or probabilities.
    """
    stem, rank = nifti_stem(name), _BARE
    if _PROBABILITIES.fullmatch(stem):
        return None
    while True:
        parsed = parse_name(stem)
        if parsed is not None and parsed.role != "label":
            return None
        if parsed is not None:
            stem, rank = parsed.case_id or "", _OTHERS if parsed.second else min(rank, _SEGMENTATION)
        elif (cut := _cut(stem, _ENDINGS[side])) is not None:
            stem, rank = cut, _OWN
        elif (cut := _cut(stem, _EITHER)) is not None:
            stem, rank = cut, min(rank, _SEGMENTATION)
        elif (cut := _cut(stem, _ENDINGS[_OTHER[side]])) is not None:
            return cut, _OTHERS
        else:
            return stem, rank


def _cut(stem: str, endings: str) -> str | None:
    """What stands before one of the endings, None where there is none."""
    match = re.fullmatch(rf"(?:(.*?)[-_.])?(?:{endings})", stem, re.IGNORECASE)
    return None if match is None else match[1] or ""


def pair_by_name(predictions: Segmentations, labels: Collection[str]) -> NamedPairs:
    """Each prediction with the label of its name, else of the one name that is a part of the other's.

    `00057-001` and `team_BraTS-GLI-00057-001` both are `BraTS-GLI-00057-001`'s where no other label fits.
    """
    wanted: dict[str, list[tuple[str, ScanFile]]] = defaultdict(list)
    refused = []
    for name, files in predictions.files.items():
        fitting = _labels_named(name, labels)
        if len(fitting) == 1:
            wanted[fitting[0]] += [(name, file) for file in files]
            continue
        which = ", ".join(sorted(fitting)[:3])
        finding = f"its name fits several labels: {which}" if fitting else f"none of {len(labels)} labels has its name"
        refused.append(Refusal(case_id=name, file=str(files[0]), finding=finding, remedy=_NAME_THEM))
    pairs: dict[str, ScanFile] = {}
    inexact: dict[str, str] = {}
    for label in labels:
        named = wanted.get(label, [])
        exact = [each for each in named if each[0].casefold() == label.casefold()]
        chosen = exact or named
        if len(chosen) == 1:
            ((name, pairs[label]),) = chosen
            inexact |= {} if exact else {label: name}
            refused += [_beside(name, file, label) for name, file in named if exact and (name, file) not in exact]
        else:
            refused.append(_without_one(label, [file for _, file in chosen], predictions.passed_over.get(label)))
    return NamedPairs(pairs=pairs, inexact=inexact, refused=refused)


def _beside(name: str, file: ScanFile, label: str) -> Refusal:
    finding = f"its name holds that of {label}, which has a prediction of just its name"
    return Refusal(case_id=name, file=str(file), finding=finding, remedy=_NAME_THEM)


def _without_one(label: str, files: Sequence[ScanFile], passed_over: ScanFile | None) -> Refusal:
    """Why a label has no prediction: there are several, or none."""
    if files:
        finding = f"{len(files)} predictions have its name: {files[0]}, {files[1]}{' …' * (len(files) > 2)}"
        return Refusal(case_id=label, file="", finding=finding, remedy="keep one of them")
    finding = "no prediction has its name"
    if passed_over is not None:
        finding += f"; {passed_over} was passed over, since other files' names end like segmentations'"
    return Refusal(case_id=label, file="", finding=finding, remedy=_NAME_THEM)


def _labels_named(name: str, labels: Collection[str]) -> list[str]:
    """The labels that a prediction may be of: the one of its name; else the longest within it; else those around it.

    None that is another exam of the same person: a follow-up's name begins with that of the first.
    """
    if name in labels:
        return [name]
    same = [label for label in labels if label.casefold() == name.casefold()]
    if same:
        return same
    within = [label for label in labels if _holds(name, label) and not _other_exam(name, label)]
    longest = [label for label in within if not any(other != label and _holds(other, label) for other in within)]
    return longest or [label for label in labels if _holds(label, name) and not _other_exam(name, label)]


def _other_exam(one: str, other: str) -> bool:
    """Whether both are whole case ids, of one person."""
    return bool(tasks_named(one) and tasks_named(other)) and person_of(one) == person_of(other)


def _holds(name: str, part: str) -> bool:
    """Whether `part` stands in `name` between separators."""
    name, part = name.casefold(), part.casefold()
    if len(part) < _SHORTEST_PART or part not in name:
        return False
    return re.search(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", name) is not None
