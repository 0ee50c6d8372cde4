"""What it costs to convert an archive as it was downloaded, beside unpacking it first: CPU time, and children's too."""

import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which

from rich.console import Console

from benchmarks.report import report
from benchmarks.settings import ArchivesBenchmark
from storage.errors import InputError
from storage.scans.case import files_of
from storage.scans.case_search import find_cases

KINDS = ("zip", "tar", "tar.gz")


def run(config: ArchivesBenchmark) -> None:
    """Pack the cases, then convert each archive both ways."""
    # Here: the benchmarks can be imported where there is no Ray; without a cluster it converts in this process.
    from ray_jobs.on_ray.conversion import convert_cohort

    found = find_cases(config.source).cases[: config.cases]
    if not found:
        raise InputError(f"wanted BraTS cases below {config.source}, found none; name the unpacked folder")
    quiet = Console(quiet=True)

    def convert(source: Path, store: Path) -> None:
        done = convert_cohort(source, str(store), console=quiet)
        assert len(done.converted) == len(found), done

    rows: list[dict[str, str | float]] = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        files = [str(file) for case in found for file in files_of(case).values()]
        archives = {kind: pack(config.source, files, here / f"cohort.{kind}") for kind in KINDS}
        convert(archives["tar"], here / "first")  # so that imports do not count
        for kind, archive in archives.items():
            unpacked = here / f"unpacked-{kind}"
            unpacked.mkdir()
            unpacking = cpu_seconds(lambda: unpack(archive, unpacked))  # noqa: B023 - called at once
            after = cpu_seconds(lambda: convert(unpacked, here / f"after-{kind}"))  # noqa: B023
            as_it_is = cpu_seconds(lambda: convert(archive, here / f"store-{kind}"))  # noqa: B023
            rows.append(
                {
                    "archive": kind,
                    "MB": archive.stat().st_size / 1e6,
                    "unpacking, CPU-s per case": unpacking / len(found),
                    "then converting, CPU-s per case": after / len(found),
                    "as it is, CPU-s per case": as_it_is / len(found),
                    "as it is / both": as_it_is / (unpacking + after),
                }
            )
    report(f"Archives of {len(found)} cases, one worker", rows, config.json)


def cpu_seconds(work: Callable[[], object]) -> float:
    """What one call costs this process and those that it starts and ends."""

    def spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    before = spent()
    work()
    return spent() - before


def pack(source: Path, files: Sequence[str], archive: Path) -> Path:
    """An archive of the files, by their paths below `source`."""
    names = [str(Path(file).relative_to(source)) for file in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.write(source / name, name)
    else:
        subprocess.run(["tar", "caf", archive, *names], cwd=source, check=True)
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """As people do."""
    if archive.suffix != ".zip":
        command = ["tar", "xf", str(archive), "-C", str(folder)]
    elif which("unzip"):
        command = ["unzip", "-q", str(archive), "-d", str(folder)]
    else:
        command = [sys.executable, "-m", "zipfile", "-e", str(archive), str(folder)]
    subprocess.run(command, check=True)
