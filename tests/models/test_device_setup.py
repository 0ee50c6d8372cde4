"""Kernels and optimisers are chosen by device in one place; an optimiser's state goes from one device to another."""

import math
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from models import Execution, UNetConfig, blocks
from models.blocks import Norm
from models.device_setup import (
    fuses_norms,
    fuses_optimiser,
    keep_compiled_code,
    load_optimiser_state,
    set_up_device,
    settle_execution,
    varying_shapes,
)
from models.precision import FLOAT32

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")

Make = Callable[..., torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def _own_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


@pytest.mark.parametrize(("device", "tried"), [(CPU, False), (GPU, True)])
def test_cudnn_tries_its_algorithms_on_a_gpu_alone(device: torch.device, tried: bool) -> None:  # noqa: FBT001
    set_up_device(device)
    assert torch.backends.cudnn.benchmark is tried
    assert fuses_optimiser(device) is tried


def test_nothing_is_tried_while_shapes_vary() -> None:
    set_up_device(GPU)
    with pytest.raises(RuntimeError, match="in the middle"), varying_shapes():
        assert torch.backends.cudnn.benchmark is False
        raise RuntimeError("in the middle")
    assert torch.backends.cudnn.benchmark is True


@pytest.mark.parametrize("fused_first", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        partial(torch.optim.SGD, lr=0.1, momentum=0.99, nesterov=True, weight_decay=1e-2),
        partial(torch.optim.Adam, lr=0.1, weight_decay=1e-2),
        partial(torch.optim.AdamW, lr=0.1, weight_decay=1e-2),
    ],
    ids=lambda make: make.func.__name__,
)
def test_a_state_of_another_device_goes_on(make: Make, fused_first: bool) -> None:  # noqa: FBT001
    """As from a GPU, with a fused optimiser and channels last, to a CPU without either, and the other way round."""

    def start(*, fused: bool | None) -> tuple[nn.Conv3d, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Conv3d(3, 4, 2)
        if fused:
            layer = layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return layer, make(layer.parameters(), fused=fused)

    def walk(layer: nn.Conv3d, optimiser: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            for index, parameter in enumerate(layer.parameters()):
                values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(10 * step + index))
                parameter.grad = torch.empty_like(parameter).copy_(values)
            optimiser.step()

    whole, uncut = start(fused=None)
    walk(whole, uncut, range(5))
    layer, before = start(fused=fused_first)
    walk(layer, before, range(3))
    other, after = start(fused=not fused_first)
    other.load_state_dict(layer.state_dict())
    load_optimiser_state(after, before.state_dict())
    assert after.param_groups[0]["fused"] is not fused_first
    assert before.param_groups[0]["fused"] is fused_first
    walk(other, after, range(3, 5))
    for parameter, wanted in zip(other.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(parameter, wanted)


def test_without_a_compiler_nothing_is_compiled_on_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = Execution(compile=True, channels_last=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert settle_execution(told, CPU, FLOAT32, UNetConfig()) == Execution(compile=False, channels_last=True)
    assert settle_execution(told, GPU, FLOAT32, UNetConfig()) == told
    (tmp_path / "g++").touch(mode=0o755)
    assert settle_execution(told, CPU, FLOAT32, UNetConfig()) == told


def test_compiled_code_is_kept_where_a_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    keep_compiled_code(tmp_path / "here")
    keep_compiled_code(tmp_path / "elsewhere")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "here")


class OnGpu(torch.Tensor):
    """A tensor that says it lies on a GPU."""

    is_cuda = property(lambda _: True)  # type: ignore[assignment]


def test_features_are_normalised_by_the_kernels_where_those_work_and_know_the_layout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Norm, "forward_fused", lambda _, features, slope: f"fused, {slope:g}")
    default = torch.randn(2, 8, 4, 4, 4).as_subclass(OnGpu)
    last = default.contiguous(memory_format=torch.channels_last_3d)
    for works in (True, False):
        monkeypatch.setattr(blocks, "fuses_norms", lambda _, works=works: works)
        assert (Norm(8, 8)(last, slope=0.01) == "fused, 0.01") is works
        for features, groups in ((default, 8), (last, 4)):
            norm = Norm(groups, 8)
            plain = functional.leaky_relu(functional.group_norm(features, groups), 0.01)
            torch.testing.assert_close(norm(features, slope=0.01), plain)


def test_without_triton_the_layout_of_a_gpu_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "models.fused_norm", None)
    fuses_norms.cache_clear()
    try:
        with pytest.warns(UserWarning, match="torch's own"):
            assert settle_execution(Execution(), GPU, FLOAT32, UNetConfig()).channels_last is False
        # Asked and said once.
        assert settle_execution(Execution(), GPU, FLOAT32, UNetConfig()).channels_last is False
    finally:
        fuses_norms.cache_clear()


@pytest.mark.parametrize(("error", "works"), [(2e-4, True), (0.1, False), (math.nan, False)])
def test_kernels_that_compute_something_else_are_not_used(
    error: float,
    works: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "models.fused_norm", SimpleNamespace(error_on=lambda _: error))
    fuses_norms.cache_clear()
    try:
        with warnings.catch_warnings() if works else pytest.warns(UserWarning, match="off by"):
            assert fuses_norms(GPU) is works
        settled = settle_execution(Execution(), GPU, FLOAT32, UNetConfig())
        assert settled.channels_last is works
        assert settle_execution(Execution(), GPU, FLOAT32, UNetConfig(norm_groups=8)).channels_last is False
    finally:
        fuses_norms.cache_clear()
