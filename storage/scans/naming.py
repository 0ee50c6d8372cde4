"""File names to case ids and modalities: the tables of every BraTS year, and nothing that opens a file."""

import re
from dataclasses import dataclass

from storage.scans.case import Naming
from storage.scans.listing import ScanFile

# Longest first, so that `t1ce` is not read as `t1` followed by `ce`.
_MODALITY_BY_SUFFIX: dict[str, tuple[str, Naming]] = {
    "flair": ("flair", Naming.UNDERSCORE),
    "t1ce": ("t1ce", Naming.UNDERSCORE),
    "t1gd": ("t1ce", Naming.UNDERSCORE),
    "t1": ("t1", Naming.UNDERSCORE),
    "t2": ("t2", Naming.UNDERSCORE),
    "t2f": ("flair", Naming.HYPHEN),
    "t1c": ("t1ce", Naming.HYPHEN),
    "t1n": ("t1", Naming.HYPHEN),
    "t2w": ("t2", Naming.HYPHEN),
}
LABEL_SUFFIXES = ("seg", "segm", "segmentation")
_STEM = re.compile(
    r"(?:(?P<prefix>.+)[-_])?(?P<suffix>" + "|".join([*_MODALITY_BY_SUFFIX, *LABEL_SUFFIXES]) + ")", re.IGNORECASE
)
# The last number of these names is the exam; what stands before it is the person.
_EXAM_OF_SUBJECT = re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d+|(Brats1[789]_.+)_\d+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ParsedName:
    """A file name taken apart. `role` is a modality or "label"; `case_id` is None where the folder must say it."""

    case_id: str | None
    role: str
    naming: Naming | None


def is_nifti_name(name: str) -> bool:
    """Whether a file should be looked at. Dot files are the macOS archive's shadow copies."""
    return name.lower().endswith((".nii", ".nii.gz")) and not name.startswith(".")


def nifti_stem(name: str) -> str:
    """The name without .nii or .nii.gz, in any letter case."""
    return re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)


def parse_name(file: ScanFile) -> ParsedName | None:
    """The file's case and role by its own name; None where the name says no role."""
    match = _STEM.fullmatch(nifti_stem(file.name))
    if match is None:
        return None
    suffix = match["suffix"].lower()
    if suffix in LABEL_SUFFIXES:
        return ParsedName(case_id=match["prefix"], role="label", naming=None)
    modality, naming = _MODALITY_BY_SUFFIX[suffix]
    return ParsedName(case_id=match["prefix"], role=modality, naming=naming)


def subject_of(case_id: str) -> str:
    """The person a case belongs to: `BraTS-GLI-00005-101` and `-100` are one; unknown patterns stand for themselves."""
    match = _EXAM_OF_SUBJECT.fullmatch(case_id)
    return next(group for group in match.groups() if group) if match else case_id
