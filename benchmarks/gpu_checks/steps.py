"""Training steps on data that lies on the device: layouts, compiled or not, optimisers, batches, other networks.

Timed by events in the device's stream. That something does not fit the device's memory is a figure, too.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from benchmarks.end_to_end import mark_time
from benchmarks.gpu_checks.bench import GIB, Bench, Finding
from benchmarks.networks import find_network
from benchmarks.settings import TrainStepBenchmark
from benchmarks.train_step import list_networks, make_step
from models import Execution, LossConfig, UNetConfig, build_unet, choose_precision
from models.device_setup import fuses_optimiser, set_up_device, settle_execution
from models.memory import find_peak
from models.unet import channels_last_format
from storage import MODALITIES

BATCH = 2
STEPS = 20
WARM_UP = 3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One network to train on one random batch. fused: the optimiser; both by default as in training."""

    build: Callable[[], nn.Module]
    batch: int = BATCH
    channels_last: bool = False  # of the images
    fused: bool | None = None
    steps: int = STEPS


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Seconds of the first step, and on average of those after the warm-up; bytes at most, 0 on a CPU."""

    first: float
    each: float
    allocated: int
    reserved: int


def compare_layouts(bench: Bench) -> Iterator[Finding]:
    """Both layouts, each with the fused optimiser and without."""
    yield from _variants(bench, compiled=False)


def compare_layouts_compiled(bench: Bench) -> Iterator[Finding]:
    """The same after torch.compile, which takes a minute for each layout."""
    yield from _variants(bench, compiled=True)


def _variants(bench: Bench, *, compiled: bool) -> Iterator[Finding]:
    unet = find_network(bench.preset)
    for channels_last in (True, False):
        torch.manual_seed(0)
        network = build_unet(unet, Execution(channels_last=channels_last, compile=compiled))
        for fused in (True, False):
            words = ("channels last" if channels_last else "contiguous", "fused" if fused else "not fused")
            # One network for both: it is compiled once.
            trial = Trial(build=partial(_same, network), channels_last=channels_last, fused=fused)
            yield Finding(what=", ".join(words), figures=speed_in_words(bench, trial))
            if bench.is_time_up():
                return


def _same(network: nn.Module) -> nn.Module:
    return network


def measure_batches(bench: Bench) -> Iterator[Finding]:
    """Peak memory as training would have it."""
    unet, precision = find_network(bench.preset), choose_precision(bench.device)
    execution = settle_execution(Execution(), bench.device, precision, unet)
    build, channels_last = partial(build_unet, unet, execution), bool(execution.channels_last)
    card = torch.cuda.get_device_properties(bench.device).total_memory / GIB
    predicted = find_peak(unet, LossConfig(), precision, recompute=False)
    for batch in (1, 2, 4):
        expected = predicted.step(batch * bench.full_side**unet.dimensions) + predicted.weights  # SGD's momentum
        try:
            timed = time_trial(bench, Trial(build=build, batch=batch, channels_last=channels_last, steps=1))
            figures = f"{timed.allocated / GIB:.4g} GiB allocated at most, {timed.reserved / GIB:.4g} reserved"
        except torch.OutOfMemoryError:
            figures = "out of memory"
        figures = f"{figures}, {expected / GIB:.4g} predicted, of {card:.3g} ({precision.name})"
        yield Finding(what=f"batch {batch}", figures=figures)


def compare_peers(bench: Bench) -> Iterator[Finding]:
    """MONAI's DynUNet and pytorch-3dunet's UNet3D beside ours of the same build, where they are installed."""
    told = TrainStepBenchmark(preset=bench.preset, peers=True)
    precision = choose_precision(bench.device)
    for name, build in list_networks(told, find_network(bench.preset), bench.device, precision).items():
        try:
            figures = speed_in_words(bench, Trial(build=build))
        except ImportError as missing:
            figures = f"{str(missing.name).split('.')[0]} is not installed (pip install .[dev])"
        yield Finding(what="ours" if name == "default" else name, figures=figures)
        if bench.is_time_up():
            return


def speed_in_words(bench: Bench, trial: Trial) -> str:
    """For a table."""
    try:
        timed = time_trial(bench, trial)
    except torch.OutOfMemoryError:
        return "out of memory"
    memory = f", {timed.allocated / GIB:.4g} GiB allocated at most" if timed.allocated else ""
    return (
        f"{1000 * timed.each:.4g} ms a step of {trial.batch} x {bench.full_side}^3, {trial.batch / timed.each:.4g} "
        f"patches/s, first {timed.first:.3g} s{memory}"
    )


def time_trial(bench: Bench, trial: Trial) -> Timed:
    """Train a little. Raises torch.OutOfMemoryError, and ImportError where a peer is not installed."""
    device, precision = bench.device, choose_precision(bench.device)
    free_memory(device)
    set_up_device(device)
    network = trial.build().to(device).train()
    fused = fuses_optimiser(device) if trial.fused is None else trial.fused
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True, fused=fused)
    step = make_step(network, optimiser, precision, device)
    image = torch.randn(trial.batch, len(MODALITIES), *(bench.full_side,) * 3, device=device)
    if trial.channels_last:
        image = image.contiguous(memory_format=channels_last_format(3))
    regions = (torch.rand(trial.batch, UNetConfig().regions, *image.shape[2:], device=device) < 0.1).to(torch.uint8)
    take = partial(step, image, regions)
    first = seconds_a_step(take, bench, steps=1)
    if bench.on_gpu:
        seconds_a_step(take, bench, steps=WARM_UP)
    each = seconds_a_step(take, bench, steps=trial.steps if bench.on_gpu else 1)
    allocated, reserved = peak_bytes(device)
    return Timed(first=first, each=each, allocated=allocated, reserved=reserved)


def seconds_a_step(take: Callable[[], object], bench: Bench, *, steps: int) -> float:
    """The mean over that many steps, or over those that there is time for, by events in the device's stream."""
    start, done = mark_time(bench.device), 0
    while done < steps and not (done and bench.is_time_up()):
        take()
        done += 1
    end = mark_time(bench.device)
    end.wait()
    return start.seconds_until(end) / done


def free_memory(device: torch.device) -> None:
    """Forget what earlier rows held on a GPU, and their peak."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> tuple[int, int]:
    """Allocated and reserved at most since `free_memory`; 0 on a CPU."""
    if device.type != "cuda":
        return 0, 0
    return torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
