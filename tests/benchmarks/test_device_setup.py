"""Benchmarks measure what training does: kernels, optimiser and layout come from models/device_setup.py for both."""

import ast
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import models.device_setup
from benchmarks import end_to_end, inference, train_step
from benchmarks.settings import EndToEndBenchmark, InferenceBenchmark, TrainStepBenchmark
from benchmarks.stores import open_cohort
from models import Execution, Precision, UNetConfig
from ray_jobs.evaluation import trained
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.training import optimiser, run

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
OPTIMISERS = {"SGD", "Adam", "AdamW"}


class Spied:
    """Stands in for models/device_setup.py wherever it is asked: as if each device were a GPU that likes no layout."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.set_up: list[torch.device] = []
        self.settled: list[Execution] = []
        for asks in (train_step, end_to_end, inference, run, optimiser, trained):
            for stand_in in (self.set_up_device, self.fuses_optimiser, self.settle_execution):
                if hasattr(asks, stand_in.__name__):
                    monkeypatch.setattr(asks, stand_in.__name__, stand_in)

    def set_up_device(self, device: torch.device) -> None:
        self.set_up.append(device)

    def fuses_optimiser(self, device: torch.device) -> bool:
        return device == CPU

    def settle_execution(self, execution: Execution, _: torch.device, __: Precision, ___: UNetConfig) -> Execution:
        self.settled.append(dataclasses.replace(execution, channels_last=False))
        return self.settled[-1]


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> Spied:
    return Spied(monkeypatch)


@pytest.mark.slow
def test_a_training_run_asks(spied: Spied, store_uri: str, tmp_path: Path) -> None:
    train = end_to_end.training_config(EndToEndBenchmark(patch=(16, 16, 16)))
    threads = torch.get_num_threads()
    try:
        cache = open_cohort(store_uri, tmp_path)
        plan = end_to_end.make_plan(cache, cache.store.case_ids, train)
        prepared = run.prepare(plan, LocalSession(tmp_path / "run", CPU))
    finally:
        torch.set_num_threads(threads)
    assert spied.set_up == [CPU]
    assert [prepared.model.execution] == spied.settled
    assert prepared.optimiser.param_groups[0]["fused"] is True


def test_the_benchmark_of_a_step_asks(spied: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped: list[tuple[Any, Any]] = []

    def make_step(network: Any, optimiser: Any, *_: object) -> Callable[[object, object], None]:
        stepped.append((network, optimiser))
        return lambda *_: None

    monkeypatch.setattr(train_step, "make_step", make_step)
    monkeypatch.setattr(train_step, "matmul_flops", lambda *_: 1.0)
    train_step.run(TrainStepBenchmark(preset="tiny2d", patch=(16, 16), steps=1, device="cpu"))
    network, optimiser = stepped[-1]
    assert spied.set_up == [CPU]
    assert [network.execution] == spied.settled
    assert optimiser.param_groups[0]["fused"] is True


def test_the_benchmark_of_inference_asks(spied: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "keep_freed_memory", lambda: None)
    monkeypatch.setitem(sys.modules, "monai.inferers", None)
    small = (16, 16, 16)
    inference.run(InferenceBenchmark(preset="tiny", volume=small, window=small, rounds=1, device="cpu"))
    assert spied.set_up == [CPU]
    assert len(spied.settled) == 1


def test_nobody_else_decides() -> None:
    """No other file sets cuDNN's flags, and every optimiser is told whether it is fused."""
    here = Path(models.device_setup.__file__)
    for package in ("models", "dali_pipelines", "ray_jobs", "benchmarks"):
        for file in (ROOT / package).rglob("*.py"):
            tree = list(ast.walk(ast.parse(file.read_text())))
            named = {node.attr for node in tree if isinstance(node, ast.Attribute)}
            assert "cudnn" not in named or file == here, f"{file.name} does what models/device_setup.py does"
            for call in tree:
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in OPTIMISERS:
                    said = {keyword.arg for keyword in call.keywords}
                    assert "fused" in said, f"{file.name}:{call.lineno} leaves open whether {call.func.attr} is fused"
