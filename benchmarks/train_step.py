"""One training step on synthetic data, without Ray: how fast, how large, and what each switch is worth.

`python ray_jobs/benchmark.py train-step --preset nnunet --patch 128 128 128 --peers`
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.device_speed import device_name, find_device, matmul_flops, vendor_peak, wait
from benchmarks.peak_memory import PeakMemory
from benchmarks.peer_networks import build_dynunet, build_pytorch3dunet, group_count
from benchmarks.report import report
from models import (
    UNET_PRESETS,
    Execution,
    LossConfig,
    OptimiserStep,
    Precision,
    PrecisionName,
    UNetConfig,
    build_loss,
    build_unet,
    choose_precision,
)
from storage import InputError


@dataclass(frozen=True, kw_only=True)
class TrainStepBenchmark:
    """Time training steps (forward, loss, backward, update) on random patches."""

    preset: str = "tiny"
    """A U-Net by its name in models.UNET_PRESETS."""
    patch: tuple[int, ...] | None = None
    """Patch sides; by default 128 on a GPU and 48 on a CPU, 2-D four times that."""
    batch: int = 2
    steps: int = 5
    """Timed steps of each row, after two of warm-up. The fastest is reported: on a shared machine the others measure
    the neighbours."""
    device: str = "cuda:0" if torch.cuda.is_available() else "cpu"
    precision: PrecisionName = "auto"
    switches: bool = True
    """Rows for each switch turned over. torch.compile's takes a minute."""
    peers: bool = False
    """Rows for pytorch-3dunet's UNet and MONAI's DynUNet at the same widths, where installed."""
    json: Path | None = None
    """Also write the figures to this file."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    name: str
    build: Callable[[], nn.Module]
    precision: Precision


def run(config: TrainStepBenchmark) -> None:
    """Measure a training step on synthetic data: time, memory, and what each switch is worth."""
    network, device = find_network(config.preset), find_device(config.device)
    sides = config.patch or _default_sides(network, device)
    try:
        network.check_sides(sides)
    except ValueError as unsuitable:
        raise InputError(f"--patch: {unsuitable}") from None
    torch.backends.cudnn.benchmark = True
    precision = choose_precision(device, config.precision)
    rows: list[dict[str, Any]] = []
    speed = matmul_flops(device, precision)
    variants = _variants(config, network, device, precision)
    # The libraries' own buffers come with the first steps of a process and belong to no row.
    _measure(variants[0], replace(config, steps=1), network, sides, device, speed)
    for variant in variants:
        try:
            rows.append(_measure(variant, config, network, sides, device, speed))
        except ImportError as missing:
            print(f"left out {variant.name}: {missing.name} is not installed (pip install .[dev])")
        except Exception as error:
            if "torch.compile" not in variant.name:
                raise
            # No C++ compiler or Triton: the other rows are worth having.
            print(f"left out {variant.name}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
    title = f"train step, {config.preset}, {config.batch} x {'x'.join(map(str, sides))}, {device_name(device)}"
    report(title, _relate(rows), config.json)


def _variants(
    config: TrainStepBenchmark, network: UNetConfig, device: torch.device, precision: Precision
) -> list[Variant]:
    def ours(name: str, execution: Execution, unet: UNetConfig = network, using: Precision = precision) -> Variant:
        return Variant(name=name, build=lambda: build_unet(unet, execution.settled(device, using)), precision=using)

    default = Execution()
    channels_last = bool(default.settled(device, precision).channels_last)
    variants = [ours("default", default)]
    if config.switches:
        variants += [
            ours(
                f"{'without' if channels_last else 'with'} channels_last",
                replace(default, channels_last=not channels_last),
            ),
            ours("with activation checkpointing", replace(default, activation_checkpointing=True)),
        ]
        if precision.name != "float32":
            full = choose_precision(device, "float32")
            variants.append(ours("in float32", default, using=full))
        variants.append(ours("with torch.compile", replace(default, compile=True)))
    if config.peers:
        single = replace(network, deep_supervision=0)
        grouped = replace(
            single,
            block="pre_norm",
            norm_groups=network.norm_groups or group_count(network),
            encoder_blocks=None,
            decoder_blocks=2,
            down="max_pool",
            up="nearest",
        )
        plain = replace(
            single,
            block="plain",
            norm_groups=None,
            encoder_blocks=None,
            decoder_blocks=2,
            down="strided",
            up="transposed",
        )
        variants += [
            ours("ours as DynUNet", default, plain),
            Variant(name="MONAI DynUNet", build=lambda: build_dynunet(plain), precision=precision),
            ours("ours as pytorch-3dunet", default, grouped),
            Variant(name="pytorch-3dunet", build=lambda: build_pytorch3dunet(grouped), precision=precision),
        ]
    return variants


def _measure(
    variant: Variant,
    config: TrainStepBenchmark,
    unet: UNetConfig,
    sides: tuple[int, ...],
    device: torch.device,
    matmul: float,
) -> dict[str, Any]:
    torch.manual_seed(0)
    image = torch.randn(config.batch, unet.modalities, *sides, device=device)
    regions = (torch.rand(config.batch, unet.regions, *sides, device=device) < 0.1).to(torch.uint8)
    memory = PeakMemory(device)
    network = variant.build().to(device).train()
    step = _step(network, variant.precision, device, image, regions)
    start = time.perf_counter()
    step()
    wait(device)
    first = time.perf_counter() - start
    step()
    wall, cpu = [], []
    for _ in range(config.steps):
        wait(device)
        begun, begun_cpu = time.perf_counter(), time.process_time()
        step()
        wait(device)
        wall.append(time.perf_counter() - begun)
        cpu.append(time.process_time() - begun_cpu)
    peak_mib = memory.mib()
    # Compiled code hides its operations from the counter; its row takes the default's.
    flops = None if "torch.compile" in variant.name else _count_flops(step)
    seconds = min(wall)
    row: dict[str, Any] = {
        "network": variant.name,
        "precision": variant.precision.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "samples/s": config.batch / seconds,
        "CPU s/sample": min(cpu) / config.batch,
        "peak MiB": peak_mib,
        "GFLOP/sample": None if flops is None else flops / config.batch / 1e9,
        "first step s": first,
        "matmul TFLOP/s": matmul / 1e12,
        "peak TFLOP/s": vendor_peak(device),
    }
    return row


def _step(
    network: nn.Module, precision: Precision, device: torch.device, image: Tensor, regions: Tensor
) -> Callable[[], object]:
    loss = build_loss(LossConfig())
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    take_step = OptimiserStep(network, optimiser, precision, device=device)

    def step() -> object:
        with precision.autocast(device):
            outputs = network(image)
        take_step.backward(loss(outputs, regions))
        return take_step.update()

    return step


def _relate(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Speeds against the first row's, and shares of what the device can do."""
    default = rows[0]
    key = "CPU s/sample" if default["peak TFLOP/s"] is None else "samples/s"
    related: list[Mapping[str, Any]] = []
    for row in rows:
        flops = row["GFLOP/sample"] or default["GFLOP/sample"]
        reached = flops * row["samples/s"] / 1e3
        quotient = row[key] / default[key]
        # Data sheets give the speed of 16-bit inputs.
        vendor = row["peak TFLOP/s"] if row["precision"] != "float32" else None
        related.append(
            {
                "network": row["network"],
                "precision": row["precision"],
                "parameters": row["parameters"],
                "samples/s": row["samples/s"],
                "CPU s/sample": row["CPU s/sample"],
                "speed": 1 / quotient if key == "CPU s/sample" else quotient,
                "peak MiB": row["peak MiB"] if row["peak MiB"] is not None else "",
                "GFLOP/sample": flops,
                "TFLOP/s": reached,
                "of matmul": f"{reached / row['matmul TFLOP/s']:.0%}",
                "of peak": f"{reached / vendor:.0%}" if vendor else "",
                "first step s": row["first step s"],
            }
        )
    return related


def _count_flops(step: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def find_network(preset: str) -> UNetConfig:
    """The preset's configuration. Raises InputError with the names there are."""
    if preset not in UNET_PRESETS:
        raise InputError(f"--preset must be one of {', '.join(UNET_PRESETS)}, got {preset!r}")
    return UNET_PRESETS[preset]


def _default_sides(network: UNetConfig, device: torch.device) -> tuple[int, ...]:
    side = (128 if device.type == "cuda" else 48) * (1 if network.dimensions == 3 else 4)
    return (side,) * network.dimensions
