"""`auto` takes on a CPU what was measured to be fastest there, by the records of that measurement."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from models import UNET_PRESETS, CpuKind, UNetConfig, choose_precision
from models.cpu_table import COSTS, StepCost, cost_of, cpu_kind

KINDS: tuple[CpuKind, ...] = ("amx", "avx512_bf16")
RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"


def test_the_table_is_the_records() -> None:
    """Each kind from a CPU that is of it."""
    rows = [row for kind in KINDS for row in json.loads((RECORDS / f"cpu-table-{kind}.json").read_text())["rows"]]
    assert set(COSTS) == {(row["CPU"], row["network"]) for row in rows}
    for row in rows:
        cost = asdict(COSTS[row["CPU"], row["network"]])
        assert cost == {name: float(f"{row[name]:.4g}") for name in cost}


def test_the_faster_arithmetic_is_taken_whatever_the_flag_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    cost = StepCost(bfloat16=3.0, bfloat16_last=4.0, float32=5.0, float32_last=2.0)
    monkeypatch.setitem(COSTS, ("avx512_bf16", "tiny"), cost)
    assert choose_precision(torch.device("cpu"), "auto", UNET_PRESETS["tiny"]).name == "float32"
    monkeypatch.setitem(COSTS, ("avx512_bf16", "tiny"), replace(cost, bfloat16_last=1.0))
    assert choose_precision(torch.device("cpu"), "auto", UNET_PRESETS["tiny"]).name == "bfloat16"


def test_a_network_without_a_row_takes_that_of_one_like_it() -> None:
    for kind in KINDS:
        assert cost_of(replace(UNET_PRESETS["strided"], modalities=2, regions=4), kind) is COSTS[kind, "strided"]
        assert cost_of(UNET_PRESETS["nnunet"], kind) is COSTS[kind, "tiny"]
        assert cost_of(UNetConfig(dimensions=2), kind) is COSTS[kind, "tiny2d"]
        assert cost_of(replace(UNET_PRESETS["unet2d"], widths=(9, 18)), kind) is COSTS[kind, "unet2d"]


@pytest.mark.parametrize(
    ("has", "kind"), [({"amx_bf16", "avx512_bf16"}, "amx"), ({"avx512_bf16"}, "avx512_bf16"), ({"avx2"}, "float32")]
)
def test_kinds_of_cpus(has: set[str], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True), raising=False)
    assert cpu_kind() == kind
