"""The convert command from its checked settings to its table: convert, verify, export, mirror."""

from collections.abc import Callable
from contextlib import ExitStack

from rich.console import Console

from ray_jobs.on_ray.conversion import convert_cohort, verify_cohort
from ray_jobs.on_ray.nnunet_export import export_cohort
from ray_jobs.on_ray.ray_start import ray_running
from ray_jobs.settings.console import figures_table, open_console
from ray_jobs.settings.convert_config import ConvertConfig, read_subjects
from ray_jobs.settings.exit_status import REFUSED
from ray_jobs.settings.label_choice import told_task, told_values
from storage import find_cases, list_source, open_store
from storage.archives.stream_cases import StreamListing
from storage.scans.case import files_of
from storage.scans.listing import ScanFile
from storage.store.cohort_conversion import ConversionReport
from storage.store.mirror import mirror_store
from storage.store.objects import parse_uri
from storage.store.verify import compare_files


def convert(config: ConvertConfig) -> int:
    """Do what `config` asks for; return the exit status: 3 where cases were refused or found damaged."""
    console = open_console()
    status = 0
    with ExitStack() as stack:  # a cluster is joined when there is work for it

        def start_workers() -> None:
            stack.enter_context(ray_running())

        if config.source is not None:
            status = _convert(config, config.source, console, start_workers)
        if config.verify:
            status = _verify(config, console, start_workers) or status
        if config.to_nnunet is not None:
            store = open_store(config.store)
            export_cohort(store, config.to_nnunet, console=console, start_workers=start_workers)
            console.print(f"{config.to_nnunet} has all {len(store.case_ids)} cases for nnU-Net", soft_wrap=True)
    if config.mirror is not None:
        with console.status("copying") as shown:
            store = open_store(config.store)
            copy = mirror_store(store, config.mirror, on_case=lambda case_id: shown.update(f"copied {case_id}"))
        console.print(f"{copy.uri} has all {len(copy.case_ids)} cases of {config.store}", soft_wrap=True)
    return status


def _convert(config: ConvertConfig, source: str, console: Console, start_workers: Callable[[], None]) -> int:
    report = convert_cohort(
        source,
        parse_uri(config.store)[0],
        modalities=config.modalities,
        task=told_task(config.task),
        label_map=told_values(config.label_map),
        names=config.names or None,
        subjects=read_subjects(config.subjects),
        trust_grid=config.trust_grid,
        console=console,
        start_workers=start_workers,
    )
    show(report, console)
    return REFUSED if report.refused else 0


def _verify(config: ConvertConfig, console: Console, start_workers: Callable[[], None]) -> int:
    store = open_store(config.store)
    files: dict[str, dict[str, ScanFile]] = {}
    problems: list[str] = []
    if config.source is not None:
        listing = list_source(config.source)
        cases = find_cases(listing, modalities=store.settings.modalities, names=config.names or None).cases
        if isinstance(listing, StreamListing):  # its files are compared here, as they come by
            stored = set(store.case_ids)
            for case in listing.bring([case for case in cases if case.case_id in stored]):
                problems += compare_files(store.info(case.case_id), files_of(case))
        else:
            files = {case.case_id: files_of(case) for case in cases}
    problems += verify_cohort(store, files=files, console=console, start_workers=start_workers)
    for problem in problems:
        console.print(problem, style="red", soft_wrap=True)
    console.print(f"verified {len(store.case_ids)} cases: {len(problems)} problems")
    return REFUSED if problems else 0


def show(report: ConversionReport, console: Console) -> None:
    """Print what a conversion did as a table, and each refusal and notice on a line of its own."""
    for refusal in report.refused:
        console.print(f"refused {refusal}", style="yellow", soft_wrap=True)
    for notice in report.notices:
        console.print(f"notice: {notice}", style="yellow", soft_wrap=True)
    table = figures_table(f"{report.store_uri} ({report.task})", "cases", "count")
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
