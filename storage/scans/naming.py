"""File names to case ids and modalities: the tables of every BraTS year, and nothing that opens a file."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from storage.scans.case import Naming

_MODALITY_BY_SUFFIX: dict[str, tuple[str, Naming | None]] = {
    **dict.fromkeys(("t2_flair", "t2-flair", "t2flair"), ("flair", None)),
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
LABEL_SUFFIXES = ("seg", "segm", "segmentation", "tumor_segmentation", "tumour_segmentation", "gtv")
# What is taken only where there is nothing better: bias-corrected scans, and segmentations that nobody corrected.
_BIAS = "_bias"
_SECOND_LABELS = ("automated_approx_segm",)
# What UCSF-PDGM and UPENN-GBM have beside them: of the case, but neither one of its scans nor its segmentation.
_OTHERS = (
    *(r"(?:adc|asl|swi|dwi)(?:_bias)?", r"(?:dti|dsc)(?:[-_][-\w]+)?", r"(?:t1|t1gd|t2|flair)_unstripped"),
    r"brain(?:_parenchyma)?_segmentation",
)
# The shortest prefix, so that the longest of these endings is found: X_tumor_segmentation is of X.
_STEM = re.compile(
    rf"(?:(?P<prefix>.+?)[-_])??(?:(?P<scan>{'|'.join(_MODALITY_BY_SUFFIX)})(?P<bias>{_BIAS})?"
    rf"|(?P<label>{'|'.join(LABEL_SUFFIXES)})|(?P<second>{'|'.join(_SECOND_LABELS)})|(?P<other>{'|'.join(_OTHERS)}))",
    re.IGNORECASE,
)
# Folders that hold the segmentations of many cases.
_LABEL_FOLDERS = {
    *("label", "labels", "labelstr", "labelsts", "segmentations", "segs", "gt", "ground_truth", "groundtruth"),
}
# What else people call a scan, in a dataset.json or as a folder: in lower case, letters and numbers alone.
_MODALITY_BY_WORD = {
    **dict.fromkeys(("flair", "t2f", "t2flair", "flairt2"), "flair"),
    **dict.fromkeys(("t1", "t1w", "t1n", "t1native", "t1pre", "t1precontrast", "precontrastt1"), "t1"),
    **dict.fromkeys(("t1ce", "t1gd", "t1c", "t1wce", "t1wgd", "t1gad", "t1post", "t1contrast"), "t1ce"),
    **dict.fromkeys(("t1postcontrast", "t1wpostcontrast", "postcontrastt1", "postcontrastt1w"), "t1ce"),
    **dict.fromkeys(("t1contrastenhanced", "contrastenhancedt1", "cet1", "t1gadolinium"), "t1ce"),
    **dict.fromkeys(("t2", "t2w"), "t2"),
}
_SEPARATORS = "-_."


@dataclass(frozen=True, kw_only=True)
class ParsedName:
    """A name taken apart. `role` is a modality, "label", or None for what is of the case and neither.

    `case_id` is None where the folder must say it; `second` is what is taken only where there is nothing better.
    """

    case_id: str | None
    role: str | None
    naming: Naming | None = None
    second: bool = False


def is_nifti_name(name: str) -> bool:
    """Whether a file should be looked at. Dot files are the macOS archive's shadow copies."""
    return name.lower().endswith((".nii", ".nii.gz")) and not name.startswith(".")


def nifti_stem(name: str) -> str:
    """The name without .nii or .nii.gz, in any letter case."""
    return re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)


def parse_name(name: str) -> ParsedName | None:
    """Case and role by a name of a file, or of a folder that is named like one; None where it says no role."""
    match = _STEM.fullmatch(nifti_stem(name))
    if match is None:
        return None
    if match["scan"] is not None:
        modality, naming = _MODALITY_BY_SUFFIX[match["scan"].lower()]
        return ParsedName(case_id=match["prefix"], role=modality, naming=naming, second=match["bias"] is not None)
    role = None if match["other"] is not None else "label"
    return ParsedName(case_id=match["prefix"], role=role, second=match["second"] is not None)


def parse_folder(name: str) -> ParsedName | None:
    """What a folder's name says its files are: a scan (`t1`), segmentations (`labels`), or one file's name."""
    if name.lower() in _LABEL_FOLDERS:
        return ParsedName(case_id=None, role="label")
    parsed = parse_name(name)
    if (parsed is None or parsed.case_id is not None) and (modality := modality_named(name)):  # T1-Gd
        return ParsedName(case_id=None, role=modality)
    return parsed if parsed is not None and parsed.role is not None else None


def parse_told(name: str, endings: Mapping[str, str]) -> ParsedName | None:
    """Case and role by the endings that were told, each for its role."""
    stem = nifti_stem(name)
    for role, told in endings.items():
        ending = nifti_stem(told).lstrip("-_")  # people also give the end as it stands: _flair.nii.gz
        if stem.lower() == ending.lower():
            return ParsedName(case_id=None, role=role, naming=Naming.TOLD)
        if stem.lower().endswith(ending.lower()) and stem[-len(ending) - 1] in "-_":
            return ParsedName(case_id=stem[: -len(ending) - 1], role=role, naming=Naming.TOLD)
    return None


def modality_named(word: str) -> str | None:
    """The modality that people call `word` (T1w, T1-Gd, T2 FLAIR); None where it is none of BraTS'."""
    return _MODALITY_BY_WORD.get(re.sub(r"\bmri?\b|weighted|[^a-z0-9]", "", word.lower().replace("_", " ")))


def owner_of(name: str, case_ids: Collection[str]) -> str | None:
    """The longest of the case ids that a file's name is, or begins with and goes on behind a separator."""
    stem = nifti_stem(name)
    return next((each for each in (stem, *beginnings(stem)) if each in case_ids), None)


def beginnings(name: str) -> list[str]:
    """What stands before each separator of a name, longest first."""
    return [name[:end] for end in range(len(name) - 1, 0, -1) if name[end] in _SEPARATORS]
