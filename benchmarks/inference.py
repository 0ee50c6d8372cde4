"""Whole-volume inference, our sliding window beside MONAI's in one run, and what counting thresholds adds to it.

Seconds are those of one case; voxels/s are of the volume, each counted once however many windows see it.

`python ray_jobs/benchmark.py inference --preset tiny --volume 96 128 96`
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.device_speed import find_device, wait
from benchmarks.peak_memory import PeakMemory, keep_freed_memory
from benchmarks.report import report
from benchmarks.train_step import find_network
from models import (
    Execution,
    PrecisionName,
    ThresholdCounts,
    build_unet,
    choose_precision,
    sliding_window_probabilities,
)
from storage import InputError


@dataclass(frozen=True, kw_only=True)
class InferenceBenchmark:
    """Time sliding-window inference of one random volume, ours and MONAI's turn about."""

    preset: str = "strided"
    """A 3-D U-Net by its name in models.UNET_PRESETS."""
    volume: tuple[int, int, int] = (140, 170, 140)
    """Voxels along D, H, W: about those of a brain-cropped BraTS case."""
    window: tuple[int, int, int] = (96, 96, 96)
    overlap: float = 0.5
    batch: int = 2
    """Windows predicted at once."""
    rounds: int = 3
    """Both are run this often, turn about; the fastest of each is reported."""
    device: str = "cuda:0" if torch.cuda.is_available() else "cpu"
    precision: PrecisionName = "auto"
    json: Path | None = None
    """Also write the figures to this file."""


def run(config: InferenceBenchmark) -> None:
    """Measure whole-volume inference, our sliding window beside MONAI's (where installed), and counting thresholds."""
    unet, device = find_network(config.preset), find_device(config.device)
    try:
        unet.check_sides(config.window)
    except ValueError as unsuitable:
        raise InputError(f"--window: {unsuitable}") from None
    precision = choose_precision(device, config.precision)
    if device.type == "cpu":
        keep_freed_memory()
    network = build_unet(unet, Execution().settled(device, precision)).to(device).eval()
    image_MDHW = torch.randn(unet.modalities, *config.volume, device=device)
    regions_RDHW = (torch.rand(unet.regions, *config.volume, device=device) < 0.05).to(torch.uint8)

    def predict(image: Tensor) -> Tensor:
        with precision.autocast(device):
            return network(image)[0]

    def ours() -> Tensor:
        return sliding_window_probabilities(
            predict, image_MDHW, window=config.window, overlap=config.overlap, batch_size=config.batch
        )

    ours_first = ours()
    contenders: dict[str, Callable[[], Any]] = {"ours": ours}
    try:
        theirs = _monai(predict, image_MDHW, config)
        difference = float((theirs() - ours_first).abs().max())
        contenders["MONAI"] = theirs
        print(f"largest difference of a probability from MONAI's: {difference:.2g}")
    except ImportError:
        print("left out MONAI: it is not installed (pip install .[dev])")

    def count() -> Tensor:
        counts = ThresholdCounts(unet.regions, device=device)
        counts.update("case", ours_first, regions_RDHW)
        return counts.thresholds

    contenders["counting 1,001 thresholds"] = count
    best = _fastest(contenders, config.rounds, device)
    key = "seconds" if device.type == "cuda" else "CPU s"
    voxels = math.prod(config.volume)
    rows = [
        {
            "what": name,
            **figures,
            "voxels/s": voxels / figures["seconds"],
            "of ours": f"{figures[key] / best['ours'][key]:.1%}",
        }
        for name, figures in best.items()
    ]
    title = (
        f"inference, {config.preset}, volume {'x'.join(map(str, config.volume))}, window "
        f"{'x'.join(map(str, config.window))}, overlap {config.overlap}, {precision.name}, {device}"
    )
    report(title, rows, config.json)


def _monai(predict: Callable[[Tensor], Tensor], image_MDHW: Tensor, config: InferenceBenchmark) -> Callable[[], Tensor]:
    from monai.inferers import sliding_window_inference

    def theirs() -> Tensor:
        with torch.no_grad():
            result = sliding_window_inference(
                image_MDHW[None],
                config.window,
                config.batch,
                lambda image: torch.sigmoid(predict(image).float()),
                overlap=config.overlap,
                mode="gaussian",
            )
        assert isinstance(result, Tensor)
        return result[0]

    return theirs


def _fastest(
    contenders: dict[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name, work in contenders.items():
            # Resident memory says nothing of one row where freed memory is kept.
            memory = PeakMemory(device) if device.type == "cuda" else None
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            wait(device)
            figures = {"seconds": time.perf_counter() - wall, "CPU s": time.process_time() - cpu}
            if memory is not None:
                figures["peak MiB"] = memory.mib() or 0.0
            before = best.get(name, figures)
            best[name] = {key: min(value, before[key]) for key, value in figures.items()}
    return best
