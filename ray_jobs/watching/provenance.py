"""Where a figure comes from: which code, which machine, when."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

import psutil
import torch


def git_commit() -> str | None:
    """Return the commit of this code, with `+` where files differ from it; None outside a repository."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"], cwd=here, capture_output=True
        )
    except OSError:  # no git on this machine
        return None
    return found.stdout.decode().strip() or None


def describe_machine() -> str:
    """Return processor, cores, memory and GPUs in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gib = round(psutil.virtual_memory().total / 2**30)
    parts = [f"{cores} cores of {_processor()}", f"{gib} GiB"]
    if torch.cuda.is_available():
        parts += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(parts)


def today() -> str:
    """Return the date in UTC, as 2026-11-25."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    # Where a hypervisor hides the model, what it computes with says more than the name.
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    shown = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    name = names[0] if names else platform.machine()
    return f"{name} ({', '.join(shown)})" if shown else name
