"""The device a benchmark runs on: how fast it could be at best, and how much of its memory was needed."""

import contextlib
import ctypes
import gc
from pathlib import Path

import torch

from benchmarks.cost import resident_mib, time_call
from models import Precision
from storage import InputError

# Dense, with 16-bit inputs and 32-bit sums, from the vendors' data sheets (bfloat16; float16 on T4 and V100).
PEAK_TFLOPS = {
    "T4": 65.0,
    "V100": 125.0,
    "A10G": 70.0,
    "L4": 121.0,
    "A100": 312.0,
    "L40S": 362.0,
    "H100": 989.0,
    "H200": 989.0,
}


def find_device(name: str) -> torch.device:
    """The device; "auto" takes a GPU where there is one. Raises InputError where there is none of that name."""
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as missing:
        reason = str(missing).splitlines()[0]
        raise InputError(
            f"--device must be cpu or a GPU of this machine such as cuda:0, got {name!r}: {reason}"
        ) from None
    return device


def matmul_flops(device: torch.device, precision: Precision) -> float:
    """What a large matrix product reaches here, in the run's precision: the yardstick where no data sheet is known."""
    side = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(side, side, device=device, dtype=precision.dtype or torch.float32)

    def multiply() -> None:
        matrix @ matrix
        wait(device)

    return 2 * side**3 / min(time_call(multiply).wall for _ in range(5))


def vendor_peak(device: torch.device) -> float | None:
    """TFLOP/s by the data sheet; None on CPUs and GPUs not listed."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).replace("-", " ").split()
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in words), None)


def device_name(device: torch.device) -> str:
    """For a table's title."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def wait(device: torch.device) -> None:
    """Return when all work handed to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
            self._before = resident_mib("VmRSS") or 0.0

    def mib(self) -> float | None:
        """The figure so far; None where the system doesn't tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20 - self._before
        peak = resident_mib("VmHWM")
        return None if peak is None else peak - self._before
