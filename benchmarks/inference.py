"""Whole-volume inference, our sliding window beside MONAI's in one run, and what counting thresholds adds to it.

Seconds are those of one case; voxels/s are of the volume, each counted once however many windows see it.

`python -m benchmarks inference --preset tiny --volume 96 128 96`
"""

import contextlib
import ctypes
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.cost import Cost, time_call
from benchmarks.device import find_device, wait
from benchmarks.networks import check_sides, find_network
from benchmarks.report import report
from benchmarks.settings import InferenceBenchmark
from models import Execution, ThresholdCounts, build_unet, choose_precision, sliding_window_probabilities
from models.device_setup import set_up_device, settle_execution

OVERLAP = 0.5
WINDOWS_AT_ONCE = 2


def run(config: InferenceBenchmark) -> None:
    """Predict one random volume, ours and MONAI's turn about."""
    unet, device = find_network(config.preset), find_device(config.device)
    check_sides(unet, config.window, "--window")
    set_up_device(device)
    precision = choose_precision(device, config.precision, unet)
    if device.type == "cpu":
        keep_freed_memory()
    network = build_unet(unet, settle_execution(Execution(), device, precision, unet)).to(device).eval()
    image_MDHW = torch.randn(unet.modalities, *config.volume, device=device)
    regions_RDHW = (torch.rand(unet.regions, *config.volume, device=device) < 0.05).to(torch.uint8)

    def predict(image: Tensor) -> Tensor:
        with precision.autocast(device):
            return network(image)[0]

    def ours() -> Tensor:
        return sliding_window_probabilities(
            predict, image_MDHW, window=config.window, overlap=OVERLAP, batch_size=WINDOWS_AT_ONCE
        )

    ours_first = ours()
    contenders: dict[str, Callable[[], object]] = {"ours": ours}
    try:
        theirs = open_monai(predict, image_MDHW, config)
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
    volume, window = ("x".join(map(str, sides)) for sides in (config.volume, config.window))
    title = f"inference, {config.preset}, volume {volume}, window {window}, overlap {OVERLAP}"
    best = fastest(contenders, config.rounds, device)
    rows = [
        {
            "what": name,
            "seconds": cost.wall,
            "CPU s": cost.cpu,
            "voxels/s": math.prod(config.volume) / cost.wall,
            # On a CPU others of the machine disturb the clock; on a GPU the CPU's time says little.
            "of ours": f"{cost.wall / best['ours'].wall if device.type == 'cuda' else cost.cpu / best['ours'].cpu:.1%}",
        }
        for name, cost in best.items()
    ]
    report(f"{title}, {precision.name}, {device}", rows, config.json)


def open_monai(
    predict: Callable[[Tensor], Tensor], image_MDHW: Tensor, config: InferenceBenchmark
) -> Callable[[], Tensor]:
    """MONAI's sliding window around the same network. Raises ImportError where it isn't installed."""
    from monai.inferers import sliding_window_inference

    def theirs() -> Tensor:
        with torch.no_grad():
            result = sliding_window_inference(
                image_MDHW[None],
                config.window,
                WINDOWS_AT_ONCE,
                lambda image: torch.sigmoid(predict(image).float()),
                overlap=OVERLAP,
                mode="gaussian",
            )
        assert isinstance(result, Tensor)
        return result[0]

    return theirs


def fastest(contenders: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, Cost]:
    """The least CPU and the least wall time of each contender."""

    def work_and_wait(work: Callable[[], object]) -> None:
        work()
        wait(device)

    costs: dict[str, list[Cost]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            costs[name].append(time_call(partial(work_and_wait, work)))
    return {
        name: Cost(cpu=min(cost.cpu for cost in each), wall=min(cost.wall for cost in each))
        for name, each in costs.items()
    }


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks for reuse, where there is one, as MALLOC_MMAP_THRESHOLD_ and …TRIM… do.

    By default every large activation is a fresh mapping whose page faults are a quarter of inference's CPU time.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL(None)
        for parameter in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
            glibc.mallopt(parameter, 2**30)
