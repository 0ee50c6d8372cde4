"""Convert a BraTS download into a store: `python ray_jobs/convert.py --source DIR --store PATH_OR_URL`.

Exit status: 0 when every case is stored, 3 when some were refused or found damaged (report.json in the store lists
them with reasons), 2 when nothing could be done with what was given.
"""

import csv
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from ray_jobs.console import open_console
from ray_jobs.conversion import convert_cohort, verify_cohort
from ray_jobs.exit_status import run_command
from ray_jobs.label_choice import told_convention
from ray_jobs.ray_start import ray_running
from storage import InputError, find_cases, open_store
from storage.cohort import ConversionReport
from storage.labels import MODALITIES, LabelConvention
from storage.mirror import mirror_store
from storage.objects import parse_uri

__all__ = ["ConvertConfig", "convert_cohort", "main"]

REFUSED = 3


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Convert a BraTS download into a store; run again, it does only what is missing or changed."""

    store: str
    """Folder or s3:// URL of the store; it is made if it is not there."""
    source: Path | None = None
    """Folder with the cases, at any depth. Without it only --verify is done."""
    verify: bool = False
    """Read everything in the store again and compare it with its checksums (and with the source files)."""
    mirror: str | None = None
    """Copy the store to this folder or s3:// URL, at the end; cases that are there already are left alone."""
    modalities: tuple[str, ...] = MODALITIES
    """The scans each case must have, in the store's order; fewer for cohorts with fewer."""
    names: dict[str, str] = field(default_factory=dict)
    """How file names end where they are not BraTS names: flair ENDING t1 ENDING … label ENDING."""
    label_convention: str | None = None
    """What the label values mean: brats-124, brats-123, gli-2024, msd or brats-2013; else told from the cohort."""
    label_map: dict[int, int] = field(default_factory=dict)
    """Other labels: each source value and its stored one (1 core, 2 edema, 3 enhancing, 4 cavity), as 1 1 2 2 4 3."""
    subjects: Path | None = None
    """CSV with columns case_id and subject, where ids do not tell which exams are of one person; every id a case."""

    def convention(self) -> LabelConvention | None:
        """The convention that was told, if any; raises InputError."""
        return told_convention(self.label_convention, self.label_map)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = tyro.cli(ConvertConfig, args=list(arguments), description=__doc__)
    if config.source is None and not config.verify and config.mirror is None:
        raise InputError("wanted --source DIR (or --verify or --mirror with a store that is there), got none")
    console = open_console()
    status = 0
    with ExitStack() as stack:  # Ray starts when there is work for it, and ends with this command

        def start_workers() -> None:
            stack.enter_context(ray_running())

        if config.source is not None:
            status = _convert(config, config.source, console, start_workers)
        if config.verify:
            status = _verify(config, console, start_workers) or status
    if config.mirror is not None:
        with console.status("copying") as shown:
            store = open_store(config.store)
            copy = mirror_store(store, config.mirror, on_case=lambda case_id: shown.update(f"copied {case_id}"))
        console.print(f"{copy.uri} has all {len(copy.case_ids)} cases of {config.store}", soft_wrap=True)
    return status


def _convert(config: ConvertConfig, source: Path, console: Console, start_workers: Callable[[], None]) -> int:
    report = convert_cohort(
        source,
        parse_uri(config.store)[0],
        modalities=config.modalities,
        convention=config.convention(),
        names=config.names or None,
        subjects=read_subjects(config.subjects),
        console=console,
        start_workers=start_workers,
    )
    show(report, console)
    return REFUSED if report.refused else 0


def _verify(config: ConvertConfig, console: Console, start_workers: Callable[[], None]) -> int:
    store = open_store(config.store)
    files: dict[str, dict[str, Path]] = {}
    if config.source is not None:
        for case in find_cases(config.source, modalities=config.modalities, names=config.names or None).cases:
            files[case.case_id] = dict(case.files) | ({"label": case.label} if case.label else {})
    problems = verify_cohort(store, files=files, console=console, start_workers=start_workers)
    for problem in problems:
        console.print(problem, markup=False, style="red", soft_wrap=True)
    console.print(f"verified {len(store.case_ids)} cases: {len(problems)} problems")
    return REFUSED if problems else 0


def show(report: ConversionReport, console: Console) -> None:
    """Print what a conversion did as a table, and each refusal on a line of its own."""
    for refusal in report.refused:
        console.print(f"refused {refusal}", markup=False, style="yellow", soft_wrap=True)
    table = Table(title=f"{report.store_uri} ({report.label_convention})")
    table.add_column("cases")
    table.add_column("count", justify="right")
    for name, items in (
        ("converted", report.converted),
        ("of these changed since they were stored", report.changed),
        ("already there, skipped", report.skipped),
        ("without label: for prediction only", report.unlabelled),
        ("refused", report.refused),
    ):
        table.add_row(name, str(len(items)))
    console.print(table)
    if not report.converted and not report.refused:
        console.print(f"nothing to do: all {len(report.skipped)} cases are in the store already")
    console.print(f"{report.seconds:.1f} s; report: {report.store_uri}/report.json", soft_wrap=True)


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


if __name__ == "__main__":
    sys.exit(run_command(main))
