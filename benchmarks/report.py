"""A benchmark's figures as a table for people and as a record for documents."""

import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.table import Table

from ray_jobs.settings.console import open_console
from ray_jobs.watching.provenance import git_commit


def report(title: str, rows: Sequence[Mapping[str, Any]], json_file: Path | None) -> None:
    """Print `rows` and write them to `json_file`, if given."""
    print_table(title, rows)
    if json_file is not None:
        write_record(describe_origin(title), rows, json_file)


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print `rows`: one mapping a row, of which the first names the columns."""
    table = Table(title=title)
    columns = list(rows[0])
    for column in columns:
        # Where the terminal is narrow a cell goes on in the next line: a figure that is cut is none.
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(as_text(row.get(column, "")) for column in columns))
    open_console().print(table)


def describe_origin(title: str) -> dict[str, Any]:
    """What a reader needs to believe figures: command, machine, commit and date."""
    return {
        "title": title,
        "command": command_line(sys.argv),
        "machine": describe_machine(),
        "commit": git_commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write_record(origin: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], json_file: Path) -> None:
    """Write `rows` and where they come from; what stood in the file is replaced whole or not at all."""
    replace_json({**origin, "rows": [dict(row) for row in rows]}, json_file)


def replace_json(values: Mapping[str, Any], json_file: Path) -> None:
    """Write JSON that is there whole or not at all."""
    unfinished = json_file.with_name(f"{json_file.name}.unfinished")
    unfinished.write_text(json.dumps(values, indent=2) + "\n")
    unfinished.replace(json_file)


def command_line(argv: Sequence[str]) -> str:
    """Return what to type to get the figures again, but for the file that they went to."""
    words = list(argv[1:])
    if "--json" in words:
        at = words.index("--json")
        del words[at : at + 2]
    return shlex.join(["python", "-m", "benchmarks", *words])


def as_text(value: Any) -> str:
    """Four digits of a measured number; other values as they are."""
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def describe_machine() -> str:
    """Return processor, cores, memory and GPUs in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gib = round(psutil.virtual_memory().total / 2**30)
    parts = [f"{cores} cores of {_processor()}", f"{gib} GiB"]
    if torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(parts)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    # Where a hypervisor hides the model, what it computes with says more than the name.
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    shown = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    name = names[0] if names else platform.machine()
    return f"{name} ({', '.join(shown)})" if shown else name
