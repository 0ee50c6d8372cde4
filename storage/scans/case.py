"""What one exam is before it is stored: which file holds which modality, and which cases a folder has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from storage.errors import Refusal
from storage.labels.conventions import LabelConvention
from storage.scans.listing import ScanFile


class Naming(Enum):
    """How the files say what they are; one part of the evidence for the label convention."""

    UNDERSCORE = "BraTS 2018-2021: _flair _t1 _t1ce _t2 _seg"
    HYPHEN = "BraTS 2023 and later: -t1n -t1c -t2w -t2f -seg"
    MSD = "Medical Segmentation Decathlon: 4-D images and dataset.json"
    NNUNET = "nnU-Net's raw format: _0000 … and dataset.json"
    TOLD = "names given on the command line"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One exam of one subject, as files.

    `files` maps each modality that it has to its NIfTI file. Where one 4-D file holds them all (MSD), `volumes` maps
    each modality to its index along the fourth axis; it is empty otherwise.
    """

    case_id: str
    subject: str
    files: Mapping[str, ScanFile]
    label: ScanFile | None = None
    grade: str | None = None
    naming: Naming = Naming.UNDERSCORE
    volumes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    task: str = ""
    """The name of its task in storage/labels/tasks.py, once it is known."""
    convention: LabelConvention | None = None
    """What the values of its label mean, where its folder says it or once it is known."""
    trust_grid: bool = False
    """Whether voxels of equal shape lie alike where the headers say otherwise: the user's word for it."""


def files_of(case: Case) -> dict[str, ScanFile]:
    """Each modality's file, and the label's where there is one."""
    return dict(case.files) | ({"label": case.label} if case.label is not None else {})


@dataclass(frozen=True, kw_only=True)
class CaseSearch:
    """What `find_cases` found: complete cases in order of their id, and everything that is not one, with the reason."""

    cases: tuple[Case, ...]
    refused: tuple[Refusal, ...]
    notices: tuple[str, ...] = ()
    """What a user should know about the cohort, a line each."""
