"""Files that are in no case: refused by folder, with where the rest lies and what would join it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from storage.errors import Refusal
from storage.scans.case import Case
from storage.scans.dataset_json import DATASET_FILE, IMAGES
from storage.scans.layouts import Layout, NamedFile
from storage.scans.listing import Place, ScanFile
from storage.scans.naming import nifti_stem, owner_of
from storage.scans.nnunet import match_channel, say_channels

_SHOWN = 5
_NAMES = "add the scans, or say which file is which with --names (flair ENDING … label ENDING) and --modalities"


def refuse_leftovers(
    layout: Layout,
    labels: Iterable[NamedFile],
    with_scans: set[Place],
    cases: Sequence[Case],
    modalities: Sequence[str],
) -> list[Refusal]:
    """One refusal for each folder of files that no case has; what is known to be beside a case is none.

    `labels` are segmentations without scans, `with_scans` the folders of those that have some: what else lies in them
    is noted with their cases.
    """
    by_id = {case.case_id: case for case in cases}
    refused: list[Refusal] = []
    labels_in: dict[Place, list[NamedFile]] = defaultdict(list)
    for label in labels:
        case = by_id.get(label.case_id)
        if case is None or case.label is None:
            labels_in[label.file.parent].append(label)
        elif not label.second:
            finding = f"a second segmentation of this case, which has {case.label}"
            refused.append(Refusal(case_id=label.case_id, file=str(label.file), finding=finding, remedy="keep one"))
    without_scans = (layout.ignored.keys() | layout.extra.keys()) - with_scans
    for folder in labels_in.keys() | without_scans:
        ignored = layout.ignored.get(folder, []) if folder in without_scans else []
        extra = layout.extra.get(folder, []) if folder in without_scans else []
        strange = [file for file in extra if owner_of(file.name, by_id) is None]
        refusal = _refuse_folder(folder, labels_in[folder], ignored, strange, by_id, modalities)
        if refusal is not None:
            refused.append(refusal)
    return refused


def _refuse_folder(
    folder: Place,
    labels: Sequence[NamedFile],
    ignored: Sequence[ScanFile],
    strange: Sequence[ScanFile],
    cases: Mapping[str, Case],
    modalities: Sequence[str],
) -> Refusal | None:
    files = [*(label.file for label in labels), *ignored, *strange]
    owners = [cases[owner] for file in files if (owner := owner_of(file.name, cases)) is not None]
    if not labels and len(owners) == len(files) and all(case.label is not None for case in owners):
        return None  # something else of cases that lack nothing
    ids = {label.case_id for label in labels}
    kind = "segmentations only" if labels else "names that say no modality"
    finding = f"missing modalities {', '.join(modalities)}: found {kind} ({_listed(files)})"
    bare = next((case for case in (*owners, *cases.values()) if case.label is None), None)
    if bare is not None:
        finding += f"; cases without a segmentation are there, such as {bare.case_id} in {_folder_of(bare)}"
    return Refusal(
        case_id=next(iter(ids)) if len(ids) == 1 else folder.name,
        file=str(folder),
        finding=finding,
        remedy=_remedy(folder, labels, [*ignored, *strange], cases, bare),
    )


def _remedy(
    folder: Place,
    labels: Sequence[NamedFile],
    ignored: Sequence[ScanFile],
    cases: Mapping[str, Case],
    bare: Case | None,
) -> str:
    """What would make cases of the files, or segmentations of cases that have none."""
    channels = {match[2] if (match := match_channel(file.name)) else "" for file in ignored}
    if ignored and "" not in channels:
        return f"put nnU-Net's {DATASET_FILE} beside imagesTr or imagesTs, or {say_channels(channels)}"
    if folder.name in IMAGES and not labels:
        return f"where these are 4-D, put the decathlon's {DATASET_FILE} beside {folder.name}; else {_NAMES}"
    if bare is None:
        return _NAMES
    if labels:
        return f"name each segmentation after its case, such as {bare.case_id}_seg.nii.gz"
    rests = {_rest(file.name, owner_of(file.name, cases)) for file in ignored}
    if rests == {""}:
        return "if these are the segmentations, call their folder labels"
    rest = rests.pop() if len(rests) == 1 else None
    endings = {role: _rest(file.name, bare.case_id) for role, file in bare.files.items()}
    if rest and all(endings.values()):
        told = " ".join(f"{role} {ending}" for role, ending in endings.items())
        return f"if these are the segmentations, say so with --names {told} label {rest}, and --task for their meaning"
    return f"if these are the segmentations, name them after their cases, such as {bare.case_id}_seg.nii.gz"


def _rest(name: str, case_id: str | None) -> str | None:
    """What a file's name says after the case; None where it is not the case's."""
    stem = nifti_stem(name)
    return stem[len(case_id) + 1 :] if case_id is not None and owner_of(name, {case_id}) else None


def _listed(files: Sequence[ScanFile]) -> str:
    more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
    return ", ".join(file.name for file in files[:_SHOWN]) + more


def _folder_of(case: Case) -> str:
    return str(next(iter(case.files.values())).parent)
