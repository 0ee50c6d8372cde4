"""The device a benchmark runs on, and how fast it could be at best."""

import time

import torch

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
    """The device. Raises InputError where there is none of that name."""
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
    seconds = []
    for _ in range(5):
        wait(device)
        begun = time.perf_counter()
        matrix @ matrix
        wait(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * side**3 / min(seconds)


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
