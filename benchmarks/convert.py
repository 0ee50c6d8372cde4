"""What converting a case costs: CPU time, bytes stored and peak memory; how codecs compare; and nnU-Net v2's own.

Every row is measured in a process of its own with one worker, the rows of several rounds taken in turn, so that a noisy
machine treats them alike.
"""

import contextlib
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zlib_ng import zlib_ng

from benchmarks.report import report
from storage.errors import InputError
from storage.scans.case import Case
from storage.scans.case_search import find_cases
from storage.scans.gunzip import gunzip, is_gzip
from storage.store.case_conversion import convert_case
from storage.store.cohort_store import create_store
from storage.store.layout import DEFAULT_LAYOUT, Layout

LAYOUTS: dict[str, Layout] = {
    "ours: zstd 1, byte shuffle, 1 MiB blocks, chunks to 96, sharded": DEFAULT_LAYOUT,
    "blocks of Blosc's choice": Layout(block_bytes=0),
    "bit shuffle": Layout(shuffle="bitshuffle"),
    "zstd 3": Layout(level=3),
    "lz4 5": Layout(compressor="lz4", level=5),
    "lz4hc 5": Layout(compressor="lz4hc", level=5),
    "not sharded": Layout(sharded=False),
    "chunks to 32": Layout(chunk_side=32),
    "chunks to 64": Layout(chunk_side=64),
    "one chunk": Layout(chunk_side=1 << 12),
}
OURS = next(iter(LAYOUTS))
_GZIP = 31  # zlib's window bits for a gzip header


@dataclass(frozen=True, kw_only=True)
class ConvertBenchmark:
    """Measure the conversion of a BraTS folder, one worker; compare codecs, gunzips and nnU-Net v2's preprocessing."""

    source: Path
    """Folder with BraTS cases."""
    cases: int | None = None
    """How many of its cases to convert; all without it."""
    rounds: int = 1
    """How often to measure each row; the fastest round counts."""
    layouts: bool = True
    """Also measure the codecs, chunks and shards that were considered."""
    peer_python: Path | None = Path(sys.executable) if find_spec("nnunetv2") else None
    """A Python that has nnunetv2 installed, as this one may: measure its preprocessing in the same go (BraTS 2018-2021
    names only)."""
    json: Path | None = None
    """Write the figures to this file, too."""


def run(config: ConvertBenchmark) -> None:
    """Measure what converting a case costs (CPU time, bytes stored, memory), codec by codec, and nnU-Net v2's own."""
    found = find_cases(config.source).cases[: config.cases]
    if not found:
        raise InputError(f"wanted BraTS cases below {config.source}, found none; name the unpacked folder")
    names = list(LAYOUTS) if config.layouts else [OURS]
    if config.peer_python is not None:
        names.append("nnU-Net v2 preprocessing")
    best: dict[str, dict[str, Any]] = {}
    for _ in range(config.rounds):
        for name in names:
            row = _measure(name, config, found)
            if name not in best or row["CPU-s per case"] < best[name]["CPU-s per case"]:
                best[name] = row
    rows = [best[name] for name in names]
    if config.layouts:
        rows += _measure_gunzips(found[0])
    report(f"Conversion of {len(found)} cases with one worker", rows, config.json)


def _measure(name: str, config: ConvertBenchmark, cases: Sequence[Case]) -> dict[str, Any]:
    if name in LAYOUTS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            return {"what": name, **process.submit(convert_all, list(cases), LAYOUTS[name]).result()}
    peer = Path(__file__).with_name("peer_nnunet.py")
    folders = [str(next(iter(case.files.values())).parent) for case in cases]
    done = subprocess.run([str(config.peer_python), str(peer), *folders], capture_output=True, text=True)
    if done.returncode != 0:
        raise InputError(f"{config.peer_python} cannot run {peer.name}: {done.stderr.strip().splitlines()[-1]}")
    return {"what": name, **json.loads(done.stdout.splitlines()[-1])}


def convert_all(cases: Sequence[Case], layout: Layout) -> dict[str, float]:
    """Convert `cases` into a store that is then thrown away; the first once before, so that imports do not count."""
    with tempfile.TemporaryDirectory() as folder:
        store = create_store(Path(folder) / "store")
        convert_case(cases[0], store, layout=layout)
        wall, cpu = time.perf_counter(), time.process_time()
        for case in cases:
            convert_case(case, store, layout=layout)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        files = [path for path in (Path(folder) / "store" / "cases").rglob("*/*") if path.is_file()]
        stored = sum(path.stat().st_size for path in files)
    return {
        "CPU-s per case": cpu / len(cases),
        "wall-s per case": wall / len(cases),
        "MB per case": stored / len(cases) / 1e6,
        "objects per case": len(files) / len(cases),
        "peak MB": _peak_megabytes(),
    }


def _peak_megabytes() -> float:
    """The most memory this process has had resident. Not getrusage's figure, which a child inherits from its parent."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kibibytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return kibibytes * 1024 / 1e6


def _measure_gunzips(case: Case) -> list[dict[str, Any]]:
    """Only the decompression of one case's files, with the libraries that were considered."""
    raws = [path.read_bytes() for path in (*case.files.values(), *([case.label] if case.label else []))]
    raws = [raw for raw in raws if is_gzip(raw)]
    sizes = [len(zlib.decompress(raw, _GZIP)) for raw in raws]
    candidates: dict[str, Callable[[bytes, int], object]] = {
        "zlib-ng, size known (ours)": gunzip,
        "zlib-ng, size not known": lambda raw, size: zlib_ng.decompressobj(wbits=_GZIP).decompress(raw),
        "Python's zlib, size known": lambda raw, size: zlib.decompress(raw, _GZIP, size),
    }
    with contextlib.suppress(ImportError):  # not a dependency
        from isal import isal_zlib

        candidates["isal, size known"] = lambda raw, size: isal_zlib.decompress(raw, wbits=_GZIP, bufsize=size + 1)
        candidates["isal, size not known"] = lambda raw, size: isal_zlib.decompressobj(wbits=_GZIP).decompress(raw)
    rows = []
    for name, decompress in candidates.items():
        times = []
        for _ in range(5):
            cpu = time.process_time()
            for raw, size in zip(raws, sizes, strict=True):
                decompress(raw, size)
            times.append(time.process_time() - cpu)
        rows.append({"what": f"gunzip alone: {name}", "CPU-s per case": min(times)})
    return rows
