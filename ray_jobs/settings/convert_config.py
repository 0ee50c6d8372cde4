"""What a conversion is told."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

from storage import InputError


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Convert a BraTS download into a store; run again, it does only what is missing or changed."""

    store: str
    """Folder or s3:// URL of the store; it is made if it is not there."""
    source: str | None = None
    """The cases, at any depth: a folder, or a .zip, .tar or .tar.gz as downloaded (these also as s3:// URLs).
    Without it only --verify, --to-nnunet and --mirror are done."""
    verify: bool = False
    """Read everything in the store again and compare it with its checksums (and with the source files)."""
    mirror: str | None = None
    """Copy the store to this folder or s3:// URL, at the end; cases that are there already are left alone."""
    to_nnunet: Path | None = None
    """Write the store's cases into this new folder in nnU-Net's raw format; called Dataset101_NAME, any number."""
    modalities: tuple[str, ...] | None = None
    """The scans each case must have, in the store's order; fewer for cohorts with fewer. Default: the task's."""
    names: dict[str, str] = field(default_factory=dict)
    """How file names end where they are not BraTS names: flair ENDING t1 ENDING … label ENDING."""
    task: str | None = None
    """Which task the cases are of, where names and label values leave two: gli-2021, gli-2023, gli-2024, ssa, men,
    met-2023, met-2024, ped-2023, ped-2024, goat, men-rt, msd, upenn-gbm, ucsf-pdgm or gli-2013."""
    label_map: dict[int, int] = field(default_factory=dict)
    """Other labels: each source value and its stored one (1 core, 2 edema, 3 enhancing, 4 cavity, 5 cyst, 6 non-
    enhancing, 7 gross tumour volume), as 1 1 2 2 4 3."""
    subjects: Path | None = None
    """CSV with columns case_id and subject, where ids do not tell which exams are of one person; every id a case."""
    trust_grid: bool = False
    """Take files of equal shape to lie alike where headers put them elsewhere: an identity affine, a shifted origin."""


def read_subjects(path: Path | None) -> dict[str, str] | None:
    """The subject of each case id by the CSV; raises InputError when it is not one."""
    if path is None:
        return None
    wanted = "--subjects: wanted a CSV with columns case_id and subject"
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            columns, rows = table.fieldnames or [], list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{wanted}, {path}: {error}") from None
    if not {"case_id", "subject"} <= set(columns):
        raise InputError(f"{wanted}, {path} has {', '.join(columns) or 'nothing'}; name them so in its first line")
    for row in rows:
        if not row["case_id"] or not row["subject"]:
            raise InputError(f"{wanted}, {path} has a line without one: {','.join(map(str, row.values()))}; fill it in")
    return {row["case_id"]: row["subject"] for row in rows}
