"""What a training step costs on CPUs, by what they have, arithmetic and layout: `auto` takes what is fastest here.

`python -m benchmarks cpu-table` measures it on a CPU of the kind and prints the rows below: AMX on an Intel Xeon,
AVX512-bf16 on an AMD EPYC. Imports nothing heavy but torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from models.config import UNET_PRESETS, CpuKind, UNetConfig


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """CPU-milliseconds of a step; `last`: with channels_last."""

    bfloat16: float
    bfloat16_last: float
    float32: float
    float32_last: float

    @property
    def wants_bfloat16(self) -> bool:
        """Whether bfloat16 is the faster arithmetic, each in its better layout."""
        return min(self.bfloat16, self.bfloat16_last) < min(self.float32, self.float32_last)

    def wants_channels_last(self, *, in_16_bits: bool) -> bool:
        """Whether that is the faster layout of this arithmetic."""
        return self.bfloat16_last < self.bfloat16 if in_16_bits else self.float32_last < self.float32


# Where no 16-bit numbers are multiplied, they are converted, several times slower than float32. `tiny` on an AMD EPYC
# with AVX2 (docs/models.md).
CONVERTED = StepCost(bfloat16=math.inf, bfloat16_last=math.inf, float32=336, float32_last=256)
COSTS: dict[tuple[CpuKind, str], StepCost] = {
    ("amx", "tiny"): StepCost(bfloat16=129.8, bfloat16_last=127.5, float32=310.7, float32_last=232.1),
    ("amx", "strided"): StepCost(bfloat16=306.5, bfloat16_last=279.8, float32=636, float32_last=593.2),
    ("amx", "unet3d"): StepCost(bfloat16=197.2, bfloat16_last=232.8, float32=570.3, float32_last=440),
    ("amx", "tiny2d"): StepCost(bfloat16=65.37, bfloat16_last=70.28, float32=77.99, float32_last=103),
    ("amx", "unet2d"): StepCost(bfloat16=98.97, bfloat16_last=112.3, float32=151.2, float32_last=136.8),
    ("avx512_bf16", "tiny"): StepCost(bfloat16=165.2, bfloat16_last=128.6, float32=284.6, float32_last=207.3),
    ("avx512_bf16", "strided"): StepCost(bfloat16=383.3, bfloat16_last=340.8, float32=651, float32_last=581.6),
    ("avx512_bf16", "unet3d"): StepCost(bfloat16=331.9, bfloat16_last=291, float32=574.1, float32_last=439.1),
    ("avx512_bf16", "tiny2d"): StepCost(bfloat16=39.38, bfloat16_last=47.17, float32=58.44, float32_last=68.77),
    ("avx512_bf16", "unet2d"): StepCost(bfloat16=66.14, bfloat16_last=75.32, float32=110.4, float32_last=90.35),
}


def cpu_kind() -> CpuKind:
    """Return what this CPU has."""
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "amx" if has.get("amx_bf16") else "avx512_bf16" if has.get("avx512_bf16") else "float32"


def cost_of(network: UNetConfig | None, kind: CpuKind) -> StepCost:
    """Return the row of the network, or of the measured one that computes most like it."""
    if kind == "float32":
        return CONVERTED
    if network is None:
        return COSTS[kind, "tiny"]
    known = replace(network, modalities=4, regions=3, region_labels=None, head="regions")
    names = [name for name, preset in UNET_PRESETS.items() if preset == known and (kind, name) in COSTS]
    flat = network.dimensions == 2
    alike = ("unet2d" if flat else "unet3d") if network.norm_groups else ("tiny2d" if flat else "tiny")
    return COSTS[kind, names[0] if names else alike]
