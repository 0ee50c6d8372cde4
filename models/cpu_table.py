"""What a training step costs on CPUs, by what they have, arithmetic and layout: `auto` takes what is fastest here.

`python -m benchmarks cpu-table` measures it, with less than the CPU has where oneDNN can be told to use less, and
prints the rows below. Imports nothing heavy but torch.
"""

import math
from dataclasses import dataclass, replace

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
    ("amx", "tiny"): StepCost(bfloat16=158.8, bfloat16_last=149.6, float32=331.2, float32_last=257.8),
    ("amx", "strided"): StepCost(bfloat16=323.9, bfloat16_last=274.5, float32=678, float32_last=610.8),
    ("amx", "unet3d"): StepCost(bfloat16=246.5, bfloat16_last=268.4, float32=639, float32_last=542.5),
    ("amx", "tiny2d"): StepCost(bfloat16=53.23, bfloat16_last=62.32, float32=69.36, float32_last=84.81),
    ("amx", "unet2d"): StepCost(bfloat16=61.07, bfloat16_last=78.3, float32=115.4, float32_last=97.98),
    ("avx512_bf16", "tiny"): StepCost(bfloat16=403.4, bfloat16_last=331.2, float32=343.3, float32_last=263.9),
    ("avx512_bf16", "strided"): StepCost(bfloat16=959.3, bfloat16_last=887.4, float32=817.8, float32_last=700.2),
    ("avx512_bf16", "unet3d"): StepCost(bfloat16=988.5, bfloat16_last=841.2, float32=664.6, float32_last=496.3),
    ("avx512_bf16", "tiny2d"): StepCost(bfloat16=126.8, bfloat16_last=126.5, float32=88.64, float32_last=128),
    ("avx512_bf16", "unet2d"): StepCost(bfloat16=187, bfloat16_last=198.2, float32=166.6, float32_last=121.1),
}


def cpu_kind() -> CpuKind:
    """Return what this CPU has."""
    has = getattr(torch.cpu, "get_capabilities", dict)()
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
