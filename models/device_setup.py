"""What makes a device fast is decided here, once for training, scoring and benchmarks: kernels, optimiser, layout.

On a CPU nothing but the layout depends on it, and whether anything can be compiled.
"""

import functools
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from models.config import Execution, UNetConfig
from models.cpu_table import cost_of, cpu_kind
from models.precision import Precision

MOST_ERROR = 1e-3  # of normalised float16 features and their gradients; theirs are 2e-4 (tests, H200)


def set_up_device(device: torch.device) -> None:
    """Have cuDNN try its algorithms on each new shape and keep the fastest: the shapes of patches do not change."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True


@contextmanager
def varying_shapes() -> Iterator[None]:
    """Inside, cuDNN tries nothing: whole cases seldom have the same shape twice, and trials take seconds a shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def settle_execution(
    execution: Execution, device: torch.device, precision: Precision, network: UNetConfig
) -> Execution:
    """Return `execution` with the layout decided, where it was left open, and without compilation where that fails.

    On CPUs the layout is the one that was faster for the network in this arithmetic (cpu_table.py). On GPUs 16-bit
    convolutions want channels_last; but torch's normalisation does not, and copying back and forth costs more than it
    gains (docs/gpu.md), so it is the layout where that is done by kernels that take it. Of an imported network nothing
    was measured: it computes in torch's own layout.
    """
    if execution.compile and not can_compile(device):
        execution = replace(execution, compile=False)
    if execution.channels_last is not None:
        return execution
    if network.network is not None:
        return replace(execution, channels_last=False)
    if device.type != "cpu":
        return replace(execution, channels_last=network.norm_groups is None and fuses_norms(device))
    cost = cost_of(network, cpu_kind())
    return replace(execution, channels_last=cost.wants_channels_last(in_16_bits=precision.dtype is not None))


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs for the device: for CPUs a C++ compiler, $CXX or one on the path."""
    names = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    return device.type != "cpu" or any(shutil.which(name) for name in names if name)


@functools.cache
def fuses_norms(device: torch.device) -> bool:
    """Whether Triton's kernels of fused_norm.py normalise there: a GPU they were built for, and compute rightly on.

    Found out once by a small one. They need Triton, which comes with torch for CUDA, and the C compiler that it wants.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    try:
        from models.fused_norm import error_on

        error = error_on(device)
    except Exception as failed:  # of Triton's compiler, the C compiler or the driver, each its own kind
        warnings.warn(f"normalisation is torch's own, as Triton's kernels failed: {failed}", stacklevel=2)
        return False
    works = error <= MOST_ERROR  # not where it is NaN
    if not works:
        warnings.warn(f"normalisation is torch's own: Triton's is off by {error:.2g} on this GPU", stacklevel=2)
    return works


def keep_compiled_code(folder: Path) -> None:
    """Have torch.compile keep what it makes in `folder` for the next run, unless TORCHINDUCTOR_CACHE_DIR says where.

    By default that is below /tmp, which the next start of the machine or of a container clears.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def fuses_optimiser(device: torch.device) -> bool:
    """Whether an optimiser (torch's `fused=`) updates all weights in one kernel rather than in one for each operation.

    Not on CPUs: sums would be rounded in another order than in the runs that are there.
    """
    return device.type == "cuda"


def load_optimiser_state(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a `state_dict` that may come from another device, keeping how this one updates and how its weights lie.

    torch would go on as the state's optimiser did, with its `fused`; and fused kernels read moments in the order in
    which the weights lie in memory, which another device may lay out in another way.
    """
    own = [group["fused"] for group in optimiser.param_groups]
    groups = [group | {"fused": fused} for group, fused in zip(state["param_groups"], own, strict=True)]
    optimiser.load_state_dict({**state, "param_groups": groups})
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value) if _lies_otherwise(value, parameter) else value


def _lies_otherwise(value: torch.Tensor, parameter: torch.Tensor) -> bool:
    # Axes of one voxel have strides that mean nothing.
    strides = zip(value.shape, value.stride(), parameter.stride(), strict=True)
    return any(own != wanted for side, own, wanted in strides if side > 1)
