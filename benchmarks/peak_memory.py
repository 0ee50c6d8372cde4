"""How much memory a stretch of code needed at most, and what its allocation costs."""

import contextlib
import ctypes
import gc
from pathlib import Path

import torch


class PeakMemory:
    """MiB needed at most since its creation: allocated on a GPU, resident in this process on Linux, else unknown."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device) / 2**20
        elif Path("/proc/self/clear_refs").exists():
            # What earlier rows freed must be the system's again, or this row would seem to need nothing.
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak resident size, man 5 proc
            self._before = _resident_mib("VmRSS") or 0.0

    def mib(self) -> float | None:
        """The figure so far; None where the system doesn't tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20 - self._before
        peak = _resident_mib("VmHWM")
        return None if peak is None else peak - self._before


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks for reuse, where there is one, as MALLOC_MMAP_THRESHOLD_ and …TRIM… do.

    By default every large activation is a fresh mapping whose page faults are a quarter of inference's CPU time.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL(None)
        for parameter in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
            glibc.mallopt(parameter, 2**30)


def _resident_mib(name: str) -> float | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), None)
