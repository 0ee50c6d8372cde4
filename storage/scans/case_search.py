"""A folder to its cases, whatever BraTS year it comes from; what is not a complete case is refused by name.

File contents are not opened here, only names, `name_mapping.csv` (grades) and MSD's `dataset.json`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from storage.errors import InputError, Refusal
from storage.labels.conventions import MODALITIES, LabelConvention
from storage.scans.case import Case, CaseSearch, Naming
from storage.scans.decathlon import find_msd_cases, is_msd_folder
from storage.scans.listing import Listing, Place, ScanFile, list_folder
from storage.scans.name_mapping import GRADES, read_grades
from storage.scans.naming import LABEL_SUFFIXES, ParsedName, is_nifti_name, nifti_stem, parse_name, subject_of


@dataclass(kw_only=True)
class _Group:
    """The files of one folder that share a case id, while they are collected."""

    folder: Place
    case_id: str
    roles: dict[str, list[ScanFile]] = field(default_factory=lambda: defaultdict(list))
    namings: set[Naming] = field(default_factory=set)

    @property
    def modalities(self) -> set[str]:
        return set(self.roles) - {"label"}


def find_cases(
    source: Path | Listing,
    *,
    modalities: Sequence[str] = MODALITIES,
    names: Mapping[str, str] | None = None,
    subjects: Mapping[str, str] | None = None,
    trust_grid: bool = False,
) -> CaseSearch:
    """Every case below the folder `source`, at any depth, or among the files listed.

    `modalities` are those a case must have. `names` replaces the BraTS file names: it maps each modality, and "label",
    to the end of its file's name (`{"flair": "Flair_subtrMeanDivStd", "label": "OTMultiClass"}`).
    `subjects` maps case ids to subjects where the id does not say it. `trust_grid` is the cases'. Raises InputError
    when `source` is no folder or holds no NIfTI file, and for modalities that no file can be.
    """
    listing = source if isinstance(source, Listing) else list_folder(source)
    _check_modalities(modalities, names)
    top = listing.top
    refused: list[Refusal] = list(listing.refused)
    cases: list[Case] = []
    convention: LabelConvention | None = None
    grades, notices = read_grades(top)
    any_file = False
    described: set[int] = set()  # folders that lie in a decathlon's
    for folder in top.walk():
        files = [file for name, file in folder.files.items() if is_nifti_name(name)]
        if is_msd_folder(folder):
            described.update(map(id, folder.folders.values()))
            found = find_msd_cases(folder, modalities)
            any_file, convention = True, found.convention
            cases += found.cases
            refused += found.refused
        elif files and id(folder) not in described:
            any_file = True
            for item in _cases_of_folder(folder.path, files, modalities, names):
                (cases if isinstance(item, Case) else refused).append(item)  # type: ignore[arg-type]
    if not any_file:
        raise InputError(f"wanted NIfTI files (.nii or .nii.gz) below {top.path}, found none; name the unpacked folder")
    cases, twice = _refuse_repeated(cases)
    told = subjects or {}
    cases = [
        replace(
            case,
            grade=case.grade or grades.get(case.case_id),
            subject=told.get(case.case_id, case.subject),
            trust_grid=trust_grid,
        )
        for case in cases
    ]
    return CaseSearch(
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        refused=tuple(sorted([*refused, *twice], key=lambda refusal: (refusal.case_id, refusal.file))),
        convention=convention,
        notices=notices,
    )


def _check_modalities(modalities: Sequence[str], names: Mapping[str, str] | None) -> None:
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


def _cases_of_folder(
    folder: Place, files: Sequence[ScanFile], modalities: Sequence[str], names: Mapping[str, str] | None
) -> list[Case | Refusal]:
    groups: dict[str, _Group] = {}
    ignored: list[str] = []
    for file in files:
        parsed = parse_name(file) if names is None else _parse_told(file, names)
        if parsed is None:
            ignored.append(file.name)
            continue
        case_id = parsed.case_id or folder.name
        group = groups.setdefault(case_id, _Group(folder=folder, case_id=case_id))
        group.roles[parsed.role].append(file)
        if parsed.naming is not None:
            group.namings.add(parsed.naming)
    _adopt_lone_label(groups, folder)
    if not any(group.modalities for group in groups.values()):
        return [_refuse_without_scans(folder, groups, ignored, modalities)]
    note = tuple(f"ignored {name}" for name in ignored)
    return [_complete(group, modalities, note) for group in groups.values()]


def _parse_told(file: ScanFile, names: Mapping[str, str]) -> ParsedName | None:
    stem = nifti_stem(file.name)
    for role, told in names.items():
        name = nifti_stem(told).lstrip("-_")  # people also give the end as it stands: _flair.nii.gz
        if stem.lower() == name.lower():
            return ParsedName(case_id=None, role=role, naming=Naming.TOLD)
        if stem.lower().endswith(name.lower()) and stem[-len(name) - 1] in "-_":
            return ParsedName(case_id=stem[: -len(name) - 1], role=role, naming=Naming.TOLD)
    return None


def _adopt_lone_label(groups: dict[str, _Group], folder: Place) -> None:
    """BraTS 2020's case 355 names its segmentation W39_1998.09.19_Segm.nii: one label and one case without, together.

    Only where the folder is named after the case, so that nothing is paired by guesswork.
    """
    owner = groups.get(folder.name)
    lone = [group for group in groups.values() if not group.modalities]
    if owner is not None and owner.modalities and "label" not in owner.roles and len(lone) == 1 and len(groups) == 2:
        owner.roles["label"] = lone[0].roles["label"]
        del groups[lone[0].case_id]


def _refuse_without_scans(
    folder: Place, groups: Mapping[str, _Group], ignored: Sequence[str], modalities: Sequence[str]
) -> Refusal:
    case_id = next(iter(groups)) if len(groups) == 1 else folder.name
    labels = [path.name for group in groups.values() for path in group.roles["label"]]
    found = ", ".join([*labels, *ignored])
    kind = "segmentations only" if labels else "names that say no modality"
    return Refusal(
        case_id=case_id,
        file=str(folder),
        finding=f"missing modalities {', '.join(modalities)}: found {kind} ({found})",
        remedy="add the scans, or say which file is which with --names (flair ENDING … label ENDING) and --modalities",
    )


def _complete(group: _Group, modalities: Sequence[str], notes: tuple[str, ...]) -> Case | Refusal:
    """The group as a case, or the reason why it is none."""
    doubled = next((paths for paths in group.roles.values() if len(paths) > 1), None)
    missing = [modality for modality in modalities if modality not in group.roles]
    refuse = partial(Refusal, case_id=group.case_id, file=str(group.folder))
    if doubled is not None:
        names = ", ".join(path.name for path in doubled)
        return refuse(finding=f"two files for one thing: {names}", remedy="keep one of them")
    if missing:
        have = ", ".join(sorted(group.modalities)) or f"only a segmentation named *_{LABEL_SUFFIXES[0]}"
        return refuse(
            finding=f"missing modalities {', '.join(missing)} (found {have})",
            remedy="add the files, or name the modalities this cohort has with --modalities",
        )
    if len(group.namings) > 1:
        both = " and ".join(sorted(naming.value for naming in group.namings))
        return refuse(
            finding=f"the files follow two naming conventions: {both}",
            remedy="rename them to one, or say which file is which with --names",
        )
    grade = next((part for part in reversed(group.folder.parts) if part in GRADES), None)
    labels = group.roles.get("label")
    return Case(
        case_id=group.case_id,
        subject=subject_of(group.case_id),
        files={modality: group.roles[modality][0] for modality in modalities},
        label=labels[0] if labels else None,
        grade=grade,
        naming=next(iter(group.namings)),
        notes=notes,
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
