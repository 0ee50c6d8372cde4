"""Which case and which scan each file is: by its own name, or by the folder's where the folder says it.

<id>/<id>_t1.nii.gz                 the file says both (every BraTS year)
<id>/t1.nii.gz                      the file says the scan, the folder the case
<id>/<id>-t1n.nii/00000057.nii      a folder for each file, named like it (unpacked on Kaggle): the folder says both
t1/<id>.nii.gz, <id>/t1/x.nii.gz    a folder for each scan: it says the scan, the file or the folder above the case
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from storage.labels.tasks import tasks_named
from storage.scans.case import Naming
from storage.scans.listing import Folder, Place, ScanFile
from storage.scans.naming import ParsedName, is_nifti_name, nifti_stem, owner_of, parse_folder, parse_name, parse_told


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """A file that is a scan or the segmentation (`role`) of a case, which lies in `folder`."""

    file: ScanFile
    folder: Place
    case_id: str
    role: str
    naming: Naming | None = None
    second: bool = False
    by_folder: bool = False
    """Whether the folder's name is the case's, which may be another case's elsewhere: 001, say."""


@dataclass(kw_only=True)
class Layout:
    """The files of a source that have a role, and by folder those that have none; `extra` are known to have none.

    `predicted` are folders that predict.py wrote: what lies there is nobody's label.
    """

    named: list[NamedFile] = field(default_factory=list)
    ignored: dict[Place, list[ScanFile]] = field(default_factory=dict)
    extra: dict[Place, list[ScanFile]] = field(default_factory=dict)
    predicted: list[Place] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _InScanFolder:
    """A file in a folder that is named after a scan: its case is the file's own `stem`, or the folder above."""

    file: ScanFile
    above: Folder
    said: ParsedName
    stem: str | None


def read_layout(folders: Sequence[tuple[Folder, Folder | None]], names: Mapping[str, str] | None) -> Layout:
    """Name every NIfTI file of `folders`, each given with the one it lies in; `names` are endings that were told."""
    layout = Layout()
    open_ones: list[_InScanFolder] = []
    for folder, above in folders:
        files = [file for name, file in folder.files.items() if is_nifti_name(name)]
        if "config.json" in folder.files and any(f"{nifti_stem(file.name)}.json" in folder.files for file in files):
            layout.predicted.append(folder.path)  # a record beside each segmentation, and what made them
            continue
        for file in files:
            own = parse_name(file.name) if names is None else parse_told(file.name, names)
            said = _said_by_folder(file, folder, above, own, alone=len(files) == 1, told=names)
            if said is not None and above is not None:
                if said.case_id is not None or is_nifti_name(folder.path.name):
                    layout.named.append(_named(file, above.path, said))
                else:
                    stem = nifti_stem(file.name) if own is None or names is not None else own.case_id
                    open_ones.append(_InScanFolder(file=file, above=above, said=said, stem=stem))
            elif own is None:
                layout.ignored.setdefault(folder.path, []).append(file)
            elif own.role is None:
                layout.extra.setdefault(folder.path, []).append(file)
            else:
                layout.named.append(_named(file, folder.path, own))
    known = {file.case_id for file in layout.named}
    top = folders[0][0] if folders else None
    layout.named += [_named(item.file, item.above.path, said) for item, said in _settle(open_ones, known, top)]
    return layout


def _said_by_folder(
    file: ScanFile,
    folder: Folder,
    above: Folder | None,
    own: ParsedName | None,
    *,
    alone: bool,
    told: Mapping[str, str] | None,
) -> ParsedName | None:
    """What the folder's name says of a file in it, where that counts more than the file's own name."""
    said = parse_folder(folder.path.name)
    if said is None or above is None:
        return None
    if told is not None:  # the endings are the user's word; only segmentations may have none
        return said if said.case_id is None and said.role == "label" and "label" not in told else None
    if is_nifti_name(folder.path.name):  # no folder is called so but after the file that was unpacked into it
        return said
    if own is not None and own.role != said.role:
        return None
    if said.role == "label" and own is None and "mask" in file.name.lower():
        return None  # of a brain, as likely as not
    if said.case_id is None:
        return said
    if not alone or (own is not None and own.case_id is not None and tasks_named(own.case_id)):
        return None
    return said if tasks_named(said.case_id) or said.case_id == above.path.name else None


def _named(file: ScanFile, folder: Place, parsed: ParsedName) -> NamedFile:
    return NamedFile(
        file=file,
        folder=folder,
        case_id=parsed.case_id or folder.name,
        role=parsed.role or "",
        naming=parsed.naming,
        second=parsed.second,
        by_folder=parsed.case_id is None,
    )


def _settle(
    items: Sequence[_InScanFolder], known: set[str], top: Folder | None
) -> list[tuple[_InScanFolder, ParsedName]]:
    """Each file in a scan's folder with its case: the file's own name where one folder holds several cases.

    Where each holds one, it is the name if that is a case's by its pattern, else the folder's above. A name that is a
    case's elsewhere, or begins with it, is always that case.
    """
    by_folder: dict[int, list[_InScanFolder]] = defaultdict(list)
    for item in items:
        by_folder[id(item.above)].append(item)
    settled = []
    for here in by_folder.values():
        roles = [item.said.role for item in here]
        several = len(set(roles)) < len(roles)
        of_top = here[0].above is top and len({item.stem for item in here}) == 1
        for item in here:
            by_file = item.stem is not None and (several or of_top or bool(tasks_named(item.stem)))
            owner = owner_of(item.stem, known) if item.stem is not None else None
            case_id = owner or (item.stem if by_file else item.above.path.name)
            said = item.said
            settled.append((item, ParsedName(case_id=case_id, role=said.role, naming=said.naming, second=said.second)))
    return settled
