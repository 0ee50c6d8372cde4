"""A folder to its cases, whatever BraTS year it comes from; what is not a complete case is refused by name.

File contents are not opened here, only names, `name_mapping.csv` (grades) and a `dataset.json`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from storage.errors import InputError, Refusal
from storage.labels.conventions import MODALITIES
from storage.scans.case import Case, CaseSearch
from storage.scans.dataset_json import DATASET_FILE, with_description
from storage.scans.decathlon import find_msd_cases, is_msd_folder
from storage.scans.joining import join_cases
from storage.scans.layouts import read_layout
from storage.scans.listing import Folder, Listing, list_folder
from storage.scans.name_mapping import read_grades
from storage.scans.naming import beginnings, is_nifti_name
from storage.scans.nnunet import find_raw_cases, is_raw_folder


def find_cases(
    source: Path | Listing,
    *,
    modalities: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
    subjects: Mapping[str, str] | None = None,
    trust_grid: bool = False,
    some: bool = False,
) -> CaseSearch:
    """Every case below the folder `source`, at any depth, or among the files listed.

    `modalities` are those a case must have; without them those of the task that its id names, else all four. `names`
    replaces the BraTS file names: it maps each modality, and "label", to the end of its file's name
    (`{"flair": "Flair_subtrMeanDivStd", "label": "OTMultiClass"}`).
    `subjects` maps case ids to subjects where the id does not say it. `trust_grid` is the cases'. With `some` a case
    needs one of the modalities only, but for those of a dataset.json; its `files` say which it has. Raises InputError
    when `source` is no folder or holds no NIfTI file, and for modalities that no file can be.
    """
    listing = source if isinstance(source, Listing) else list_folder(source)
    if modalities is None and names is not None:
        modalities = MODALITIES
    _check_modalities(modalities or (), names)
    top = with_description(listing)
    refused: list[Refusal] = list(listing.refused)
    cases: list[Case] = []
    notices: list[str] = []
    plain: list[tuple[Folder, Folder | None]] = []
    described: set[int] = set()  # folders that lie in a decathlon's, or in nnU-Net's
    for folder, above in _walk(top):
        found = _read_dataset(folder, modalities, names)
        if found is None:
            if id(folder) not in described:
                plain.append((folder, above))
            continue
        described.update(map(id, folder.folders.values()))
        cases += found.cases
        refused += found.refused
        notices += found.notices
    if not described and not any(is_nifti_name(name) for folder, _ in plain for name in folder.files):
        first = f"; the first of {len(refused)} refusals: {refused[0]}" if refused else "; name the unpacked folder"
        raise InputError(f"wanted NIfTI files (.nii or .nii.gz) below {top.path}, found none{first}")
    layout = read_layout(plain, names)
    complete, others = join_cases(layout, modalities, some=some)
    notices += [
        f"{place} was written by predict.py: its segmentations are nobody's labels" for place in layout.predicted
    ]
    cases, twice = _refuse_repeated([*cases, *complete])
    grades, unread = read_grades(top)
    cases = [_with_what_is_told(case, grades, subjects or {}, trust_grid=trust_grid) for case in cases]
    return CaseSearch(
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        refused=tuple(sorted([*refused, *others, *twice], key=lambda refusal: (refusal.case_id, refusal.file))),
        notices=(*notices, *unread, *_ids_alike(cases)),
    )


def _with_what_is_told(case: Case, grades: Mapping[str, str], subjects: Mapping[str, str], *, trust_grid: bool) -> Case:
    return replace(
        case,
        grade=case.grade or grades.get(case.case_id),
        subject=subjects.get(case.case_id, case.subject),
        trust_grid=trust_grid,
    )


def _read_dataset(
    folder: Folder, modalities: Sequence[str] | None, names: Mapping[str, str] | None
) -> CaseSearch | None:
    """The cases of a folder with a dataset.json, or why it is refused as a whole; None where it is no such folder."""
    try:
        if names is None and is_raw_folder(folder):
            return find_raw_cases(folder, modalities)
        if is_msd_folder(folder) and not is_raw_folder(folder):
            return find_msd_cases(folder, modalities)
    except InputError as error:
        refusal = Refusal(
            case_id=folder.path.name,
            file=str(folder.files[DATASET_FILE]),
            finding=str(error),
            remedy="mend it, or say which file is which with --names, and what values mean with --label-map",
        )
        return CaseSearch(cases=(), refused=(refusal,))
    return None


def _walk(top: Folder) -> Iterator[tuple[Folder, Folder | None]]:
    """Every folder with the one it lies in, parents first and each once."""
    above: dict[int, Folder] = {}
    for folder in top.walk():
        for below in folder.folders.values():
            above.setdefault(id(below), folder)
        yield folder, above.get(id(folder))


def _ids_alike(cases: Sequence[Case]) -> tuple[str, ...]:
    """A notice where one case's id begins another's, which often is one person's second exam, and they count as two."""
    by_id = {case.case_id: case for case in cases}
    pairs = []
    for case in sorted(cases, key=lambda case: case.case_id):
        first = next((by_id[each] for each in beginnings(case.case_id) if each in by_id), None)
        if first is not None and first.subject != case.subject:
            pairs.append(f"{first.case_id} and {case.case_id}")
    if not pairs:
        return ()
    return (
        f"{len(pairs)} case {'id goes' if len(pairs) == 1 else 'ids go'} on where another ends, such as {pairs[0]}, "
        "and they count as two persons, one perhaps in training and one in test: where they are one, say so with "
        "--subjects",
    )


def _check_modalities(modalities: Sequence[str], names: Mapping[str, str] | None) -> None:
    if len(set(modalities)) < len(modalities):
        raise InputError(f"--modalities: wanted each scan once, got {', '.join(modalities)}; leave out what is twice")
    unknown = [modality for modality in modalities if modality not in (MODALITIES if names is None else names)]
    if unknown and names is None:
        raise InputError(
            f"--modalities: {unknown[0]} is none that BraTS names say: wanted some of {', '.join(MODALITIES)}; "
            f"for others say how the files' names end with --names {unknown[0]} ENDING …"
        )
    if unknown:
        raise InputError(
            f"--names: wanted the ending of {unknown[0]} too, got {', '.join(names or ())}; add it, or leave "
            f"{unknown[0]} out of --modalities"
        )


def _refuse_repeated(cases: Sequence[Case]) -> tuple[list[Case], list[Refusal]]:
    """Two folders with one case id: neither is taken, since nothing says which is meant."""
    by_id: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_id[case.case_id].append(case)
    kept = [group[0] for group in by_id.values() if len(group) == 1]
    refused = [
        Refusal(
            case_id=case_id,
            file=", ".join(str(next(iter(case.files.values())).parent) for case in group),
            finding=f"the same case id in {len(group)} places",
            remedy="keep one, or rename the others",
        )
        for case_id, group in by_id.items()
        if len(group) > 1
    ]
    return kept, refused
