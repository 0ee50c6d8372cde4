"""A training step in each arithmetic and layout on this CPU: models/cpu_table.py is made of it, a record for each kind.

One with AMX does not stand in for one without, though oneDNN can be told to leave AMX alone: that said float32 for all
five networks, where an AMD EPYC that has AVX-512's own bfloat16 takes 0.59 to 0.73 as long in bfloat16.

`python -m benchmarks cpu-table --json benchmarks/records/cpu-table-avx512_bf16.json`
"""

from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.cost import time_call
from benchmarks.networks import find_network
from benchmarks.report import report
from benchmarks.settings import CpuTableBenchmark
from benchmarks.train_step import make_step
from models import CpuKind, Execution, PrecisionName, build_unet, choose_precision
from models.cpu_table import StepCost, cpu_kind
from models.device_setup import fuses_optimiser
from storage import InputError

CPU = torch.device("cpu")
# What the preset trains on, or as much of it as shows the same; two of each.
SIDES = {"tiny": (40, 40, 40), "strided": (64, 64, 64), "unet3d": (32, 32, 32), "tiny2d": (96, 96), "unet2d": (96, 96)}
VARIANTS: dict[str, tuple[PrecisionName, bool]] = {
    "bfloat16": ("bfloat16", False),
    "bfloat16_last": ("bfloat16", True),
    "float32": ("float32", False),
    "float32_last": ("float32", True),
}
HOPELESS = 5  # times the fastest: not measured again


def run(config: CpuTableBenchmark) -> None:
    """Measure, and print the rows as they stand in models/cpu_table.py."""
    kind = cpu_kind()
    if kind == "float32":
        raise InputError("wanted a CPU with AMX or AVX512-bf16, got one that computes in float32 whatever it is told")
    rows = [measure(kind, name, config.rounds) for name in SIDES]
    report("a training step by arithmetic and layout, CPU-ms, one thread", rows, config.json)
    for row in rows:
        numbers = ", ".join(f"{name}={row[name]:.4g}" for name in VARIANTS)
        print(f'    ("{row["CPU"]}", "{row["network"]}"): StepCost({numbers}),')


def measure(kind: CpuKind, name: str, rounds: int) -> Mapping[str, Any]:
    """The row of a network: the least CPU time of a step in each variant, all of them turn about."""
    torch.set_num_threads(1)
    network, sides = find_network(name), SIDES[name]
    image = torch.randn(2, network.modalities, *sides)
    regions = (torch.rand(2, network.regions, *sides) < 0.1).to(torch.uint8)
    steps = {}
    for variant, (arithmetic, last) in VARIANTS.items():
        torch.manual_seed(0)
        unet = build_unet(network, Execution(channels_last=last)).train()
        optimiser = torch.optim.SGD(
            unet.parameters(), lr=1e-3, momentum=0.99, nesterov=True, fused=fuses_optimiser(CPU)
        )
        steps[variant] = make_step(unet, optimiser, choose_precision(CPU, arithmetic), CPU)
    best: dict[str, float] = {}
    for _ in range(rounds + 1):
        for variant, step in steps.items():
            if best.get(variant, 0.0) <= HOPELESS * min(best.values(), default=0.0):
                spent = 1000 * time_call(lambda step=step: step(image, regions)).cpu  # type: ignore[misc]
                best[variant] = min(best.get(variant, spent), spent)
    cost = StepCost(**best)
    last = cost.wants_channels_last(in_16_bits=cost.wants_bfloat16)
    chosen = f"{'bfloat16' if cost.wants_bfloat16 else 'float32'}{', channels_last' if last else ''}"
    return {"CPU": kind, "network": name, "patches": f"2 x {'x'.join(map(str, sides))}", **best, "auto": chosen}
