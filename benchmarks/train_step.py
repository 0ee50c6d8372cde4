"""One training step on synthetic data, without Ray: how fast, how large, and how near to what the device can do.

`python -m benchmarks train-step --preset nnunet --patch 128 128 128 --peers`
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cost import Cost, time_call
from benchmarks.device import PeakMemory, device_name, find_device, matmul_flops, vendor_peak, wait
from benchmarks.networks import (
    build_dynunet,
    build_nnunet,
    build_pytorch3dunet,
    check_sides,
    find_network,
    is_nnunets,
    like_dynunet,
    like_pytorch3dunet,
)
from benchmarks.report import report
from benchmarks.settings import TrainStepBenchmark
from models import Execution, Loss, LossConfig, OptimiserStep, Precision, UNetConfig, build_network, choose_precision
from models.device_setup import fuses_optimiser, set_up_device, settle_execution
from storage import InputError


@dataclass(frozen=True, kw_only=True)
class Warm:
    """A network that has taken its first steps. first_seconds: of the first; peak_mib: of those."""

    name: str
    parameters: int
    step: Callable[[], None]
    first_seconds: float
    peak_mib: float | None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found of a network. seconds, cpu_seconds: of the fastest step. flops: of a step."""

    warm: Warm
    seconds: float
    cpu_seconds: float
    flops: int


def run(config: TrainStepBenchmark) -> None:
    """Measure the default network, and its peers where asked for."""
    network, device = find_network(config.preset, config.model), find_device(config.device)
    side = (128 if device.type == "cuda" else 48) * (1 if network.dimensions == 3 else 4)
    sides = config.patch or (side,) * network.dimensions
    check_sides(network, sides, "--patch")
    if network.network is not None and config.activation_checkpointing:
        raise InputError("--activation-checkpointing is our U-Nets': an imported network has arguments of its own")
    set_up_device(device)
    precision = choose_precision(device, config.precision, network)
    image = torch.randn(config.batch, network.modalities, *sides, device=device)
    regions = (torch.rand(config.batch, network.regions, *sides, device=device) < 0.1).to(torch.uint8)
    warm = []
    builders = list_networks(config, network, device, precision)
    # The libraries' own buffers come with the first steps of a process and belong to no row.
    warm_up("", partial(build_network, network), precision, image, regions)
    for name, build in builders.items():
        try:
            warm.append(warm_up(name, build, precision, image, regions))
        except ImportError as missing:
            print(f"left out {name}: {missing.name} is not installed (pip install .[dev])")
    found = take_turns(warm, config.steps)
    matmul = matmul_flops(device, precision)
    rows = [table_row(each, found[0], config.batch, precision, device, matmul) for each in found]
    what = f"{config.model.network or config.preset}, {config.batch} x {'x'.join(map(str, sides))}"
    report(f"train step, {what}, {device_name(device)}", rows, config.json)


def list_networks(
    config: TrainStepBenchmark, network: UNetConfig, device: torch.device, precision: Precision
) -> dict[str, Callable[[], nn.Module]]:
    """How each row's network is built."""
    told = Execution(channels_last=config.channels_last, activation_checkpointing=config.activation_checkpointing)

    def ours(unet: UNetConfig, execution: Execution) -> Callable[[], nn.Module]:
        return partial(build_network, unet, settle_execution(execution, device, precision, unet))

    builders = {"default": ours(network, told)}
    if config.compile:
        builders["default, compiled"] = ours(network, replace(told, compile=True))
    if config.peers:
        unet = replace(network, network=None, arguments=())
        if network.network is not None:
            builders[f"ours, {config.preset}"] = ours(unet, Execution())
        plain = like_dynunet(unet)
        builders |= {"ours as DynUNet": ours(plain, Execution()), "MONAI DynUNet": partial(build_dynunet, plain)}
        if is_nnunets(unet):
            builders["nnU-Net"] = partial(build_nnunet, unet)
        if network.stem_stride == 1:  # pytorch-3dunet knows no other
            grouped = like_pytorch3dunet(unet)
            builders |= {
                "ours as pytorch-3dunet": ours(grouped, Execution()),
                "pytorch-3dunet": partial(build_pytorch3dunet, grouped),
            }
    return builders


def warm_up(name: str, build: Callable[[], nn.Module], precision: Precision, image: Tensor, regions: Tensor) -> Warm:
    """Build the network and take two steps, in which it needs as much memory as ever."""
    torch.manual_seed(0)
    device = image.device
    memory = PeakMemory(device)
    network = build().to(device).train()
    optimiser = torch.optim.SGD(
        network.parameters(), lr=1e-3, momentum=0.99, nesterov=True, fused=fuses_optimiser(device)
    )
    take_step = make_step(network, optimiser, precision, device)

    def step() -> None:
        take_step(image, regions)
        wait(device)

    first = time_call(step)
    step()
    return Warm(
        name=name,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        step=step,
        first_seconds=first.wall,
        peak_mib=memory.mib(),
    )


def take_turns(warm: Sequence[Warm], steps: int) -> list[Measured]:
    """Time a step of each, turn about, so that a neighbour on the machine disturbs all alike; then count operations."""
    timed: dict[str, list[Cost]] = {each.name: [] for each in warm}
    for _ in range(steps):
        for each in warm:
            timed[each.name].append(time_call(each.step))
    found = []
    for each in warm:
        # Compiled code would hide its operations from the counter.
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            each.step()
        costs = timed[each.name]
        seconds, cpu = min(cost.wall for cost in costs), min(cost.cpu for cost in costs)
        found.append(Measured(warm=each, seconds=seconds, cpu_seconds=cpu, flops=counter.get_total_flops()))
    return found


def make_step(
    network: nn.Module, optimiser: torch.optim.Optimizer, precision: Precision, device: torch.device
) -> Callable[[Tensor, Tensor], float]:
    """Forward, loss, backward and update for an image and its regions; gives the loss."""
    loss_of = Loss(LossConfig())
    take = OptimiserStep(network, optimiser, precision, device=device)

    def step(image_BMDHW: Tensor, regions_BRDHW: Tensor) -> float:
        with precision.autocast(device):
            loss = loss_of(network(image_BMDHW), regions_BRDHW)
        take.backward(loss)
        return take.update().loss

    return step


def table_row(
    found: Measured, default: Measured, batch: int, precision: Precision, device: torch.device, matmul: float
) -> Mapping[str, Any]:
    """Figures a sample, the speed against the default's, and shares of what the device can do."""
    on_gpu = device.type == "cuda"
    reached = found.flops / found.seconds
    speed = default.seconds / found.seconds if on_gpu else default.cpu_seconds / found.cpu_seconds
    # Data sheets give the speed of 16-bit inputs.
    peak = vendor_peak(device) if precision.name != "float32" else None
    return {
        "network": found.warm.name,
        "precision": precision.name,
        "parameters": found.warm.parameters,
        "samples/s": batch / found.seconds,
        "CPU s/sample": found.cpu_seconds / batch,
        "speed": speed,
        "peak MiB": found.warm.peak_mib if found.warm.peak_mib is not None else "",
        "GFLOP/sample": found.flops / batch / 1e9,
        "TFLOP/s": reached / 1e12,
        "of matmul": f"{reached / matmul:.0%}",
        "of peak": f"{reached / (peak * 1e12):.0%}" if peak else "",
        "first step s": found.warm.first_seconds,
    }
