"""The files of a case put together, from one folder or from several that say the same id; else refused.

Files of other folders are joined by the id in their names and by nothing else, and only where no two of them are the
same scan: what could be meant in two ways is not put together.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from storage.errors import Refusal
from storage.labels.conventions import MODALITIES
from storage.labels.tasks import person_of, tasks_named
from storage.scans.case import Case, Naming
from storage.scans.layouts import Layout, NamedFile
from storage.scans.leftovers import refuse_leftovers
from storage.scans.listing import Place, ScanFile
from storage.scans.name_mapping import GRADES
from storage.scans.naming import owner_of


@dataclass(kw_only=True)
class _Group:
    """The files that share a case id, while they are collected: of one folder, later of all that can be joined."""

    folder: Place
    case_id: str
    files: dict[str, list[NamedFile]] = field(default_factory=lambda: defaultdict(list))

    @property
    def modalities(self) -> set[str]:
        return set(self.files) - {"label"}

    def best(self, role: str) -> list[NamedFile]:
        """The files of a role without those that are second to another."""
        files = self.files.get(role, [])
        return [file for file in files if not file.second] or files

    def missing(self, modalities: Sequence[str]) -> list[str]:
        return [modality for modality in modalities if modality not in self.files]


def join_cases(
    layout: Layout, modalities: Sequence[str] | None, *, some: bool = False
) -> tuple[list[Case], list[Refusal]]:
    """The complete cases among the files that have a role, and why each other file is in none.

    `modalities` are those that a case must have; None for those of the task that its id names. With `some` one of them
    is enough, and a case's `files` are those that are there; not where files of another id have the others.
    """
    groups = _join(_group(layout.named))
    scanned = [group for group in groups if group.modalities]
    notes = _notes(layout.ignored, scanned)
    parts = _parts(scanned, modalities)
    cases: list[Case] = []
    refused: list[Refusal] = []
    for group in scanned:
        wanted = modalities or scans_of(group.case_id)
        if some and _elsewhere(group, group.missing(wanted), parts) is None:
            wanted = [modality for modality in wanted if modality in group.files] or wanted
        found = _complete(group, wanted, notes.get(id(group), ()), parts)
        (cases if isinstance(found, Case) else refused).append(found)  # type: ignore[arg-type]
    lone = [file for group in groups if not group.modalities for file in group.files["label"]]
    with_scans = {group.folder for group in scanned}
    with_scans |= {file.file.parent for group in scanned for role in group.modalities for file in group.files[role]}
    refused += refuse_leftovers(layout, lone, with_scans, cases, modalities or MODALITIES)
    return cases, refused


def scans_of(case_id: str) -> tuple[str, ...]:
    """The scans of the task that a case id names, else all four."""
    named = tasks_named(case_id)
    return named[0].scans if named else MODALITIES


def _group(files: Iterable[NamedFile]) -> list[_Group]:
    """The files of each folder by case id."""
    groups: dict[Place, dict[str, _Group]] = defaultdict(dict)
    scanned: set[str] = set()
    for file in files:
        here = groups[file.folder]
        here.setdefault(file.case_id, _Group(folder=file.folder, case_id=file.case_id)).files[file.role].append(file)
        if file.role != "label":
            scanned.add(file.case_id)
    for folder, here in groups.items():
        _adopt_lone_label(here, folder, scanned)
    return list(chain.from_iterable(here.values() for here in groups.values()))


def _adopt_lone_label(groups: dict[str, _Group], folder: Place, scanned: Collection[str]) -> None:
    """BraTS 2020's case 355 names its segmentation W39_1998.09.19_Segm.nii: one label and one case without, together.

    Only where the folder is named after the case, and the label after no other, so that nothing is paired by guesswork.
    """
    owner = groups.get(folder.name)
    lone = [group for group in groups.values() if not group.modalities]
    if owner is None or not owner.modalities or "label" in owner.files or len(lone) != 1 or len(groups) != 2:
        return
    other = lone[0].case_id
    of_another = other in scanned or bool(tasks_named(other))
    if not of_another or other.lower() == owner.case_id.lower():
        owner.files["label"] = lone[0].files["label"]
        del groups[lone[0].case_id]


def _join(groups: Sequence[_Group]) -> list[_Group]:
    """Groups of one id as one, where no scan is there twice.

    Of folders that are called alike only a segmentation joins the scans: a folder called 001 may be another's, too.
    """
    by_id: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        by_id[group.case_id].append(group)
    return list(chain.from_iterable(_join_one(same) for same in by_id.values()))


def _join_one(groups: list[_Group]) -> list[_Group]:
    whole = _Group(folder=max(groups, key=lambda group: len(group.modalities)).folder, case_id=groups[0].case_id)
    for role, files in chain.from_iterable(group.files.items() for group in groups):
        whole.files[role] += files
    doubled = {role for role in whole.files if len(whole.best(role)) > 1}
    scanned = [group for group in groups if group.modalities]
    labelled = any("label" in group.files for group in scanned)
    if len(scanned) > 1 and any(file.by_folder for group in groups for files in group.files.values() for file in files):
        return groups
    # Two segmentations, and neither beside the scans: one refusal of the case says more than one of each.
    return [whole] if not doubled or (doubled == {"label"} and not labelled) else groups


def _notes(ignored: Mapping[Place, Sequence[ScanFile]], groups: Iterable[_Group]) -> dict[int, tuple[str, ...]]:
    """What each group's case says of the files beside it: of those that begin with its id, or with nobody's."""
    by_folder: dict[Place, list[_Group]] = defaultdict(list)
    for group in groups:
        by_folder[group.folder].append(group)
    notes: dict[int, tuple[str, ...]] = {}
    for folder, here in by_folder.items():
        ids = {group.case_id for group in here}
        owners = [(owner_of(file.name, ids), f"ignored {file.name}") for file in ignored.get(folder, ())]
        for group in here:
            notes[id(group)] = tuple(note for owner, note in owners if owner in (None, group.case_id))
    return notes


def _parts(groups: Iterable[_Group], modalities: Sequence[str] | None) -> dict[frozenset[str], _Group]:
    """One example of each set of scans that is incomplete: what is missing here may lie there, under another id."""
    parts: dict[frozenset[str], _Group] = {}
    for group in groups:
        if group.missing(modalities or scans_of(group.case_id)):
            parts.setdefault(frozenset(group.modalities), group)
    return parts


def _complete(
    group: _Group, modalities: Sequence[str], notes: tuple[str, ...], parts: Mapping[frozenset[str], _Group]
) -> Case | Refusal:
    """The group as a case, or the reason why it is none."""
    best = {role: group.best(role) for role in group.files}
    refuse = partial(Refusal, case_id=group.case_id, file=str(group.folder))
    for files in best.values():
        if len(files) > 1:
            apart = len({file.file.parent for file in files}) > 1
            names = ", ".join(str(file.file) if apart else file.file.name for file in files)
            return refuse(finding=f"two files for one thing: {names}", remedy="keep one of them")
    if missing := group.missing(modalities):
        return _refuse_missing(group, missing, parts)
    namings = [file.naming for role in modalities for file in best[role] if file.naming is not None]
    if len(set(namings)) > 1 and not tasks_named(group.case_id):
        both = " and ".join(sorted({naming.value for naming in namings}))
        return refuse(
            finding=f"the files follow two naming conventions: {both}",
            remedy="call them as one of the two does, or say which file is which with --names",
        )
    seconds = [f"{role} is {file.file.name}, as there is no other" for role, (file,) in best.items() if file.second]
    return Case(
        case_id=group.case_id,
        subject=person_of(group.case_id),
        files={modality: best[modality][0].file for modality in modalities},
        label=best["label"][0].file if "label" in best else None,
        grade=next((part for part in reversed(group.folder.parts) if part in GRADES), None),
        naming=max(namings, key=namings.count) if namings else Naming.UNDERSCORE,
        notes=(*seconds, *notes),
    )


def _refuse_missing(group: _Group, missing: Sequence[str], parts: Mapping[frozenset[str], _Group]) -> Refusal:
    finding = f"missing modalities {', '.join(missing)} (found {', '.join(sorted(group.modalities))})"
    remedy = "add the files, or name the modalities this cohort has with --modalities"
    if (other := _elsewhere(group, missing, parts)) is not None:
        there = f"{', '.join(sorted(other.modalities))} of {other.case_id}, in {other.folder}"
        finding += f"; files of other ids have them, such as {there}"
        remedy = "name the files of one case alike up to the scan, such as A_t1 and A_t2"
    return Refusal(case_id=group.case_id, file=str(group.folder), finding=finding, remedy=remedy)


def _elsewhere(group: _Group, missing: Sequence[str], parts: Mapping[frozenset[str], _Group]) -> _Group | None:
    """A group that has scans which are missing here, and none of those that are here: perhaps the same exam's."""
    for scans, example in parts.items():
        if not scans & group.modalities and scans & set(missing):
            return example
    return None
