"""How much memory a training step needs at its peak, counted without a GPU and without computing anything.

torch's fake tensors go through forward pass, loss and backward pass: shapes, types and lifetimes are those of a real
step, values are not there. What every tensor occupies is added when an operation returns it and taken off when it is
freed, in a second for a step of any size.

On a GPU two things differ, and are counted: instance normalisation, where it is torch's own, wants its input contiguous
and keeps that copy; convolutions want theirs channels_last, and a workspace. For both a convolution is allowed as much
as its operands occupy, an assumption: docs/models.md has what an H200 allocated.
"""

import functools
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.blocks import Norm
from models.config import UNET_PRESETS, Execution, LossConfig, UNetConfig
from models.device_setup import settle_execution
from models.imported_network import ImportedNetwork, Network
from models.losses import Loss
from models.memory_table import PEAKS, StepPeak
from models.precision import Precision
from models.unet import UNet, channels_last_format

CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
TABLED_LOSSES = (LossConfig(), LossConfig(dice="sample"))  # their peaks are the same
SIDE = {2: 256, 3: 128}  # of the patches that peaks are predicted for; they grow with the voxels from there


class NotPredictedError(RuntimeError):
    """An imported network or loss does what cannot be followed without values."""


def find_peak(
    network: UNetConfig,
    loss: LossConfig,
    precision: Precision,
    *,
    recompute: bool,
    sides: tuple[int, ...] | None = None,
) -> StepPeak:
    """Return the table's peak where it has one for this network and loss, else what is predicted now.

    sides: of the run's patches, which are all that an imported network is known to take. Raises NotPredictedError.
    """
    if network.network is not None:
        return predict_peak(network, loss, precision, recompute=recompute, sides=sides)
    names = [name for name, known in UNET_PRESETS.items() if known == network]
    if names and loss in TABLED_LOSSES:
        return PEAKS[names[0], 32 if precision.dtype is None else 16, recompute]
    return predict_peak(network, loss, precision, recompute=recompute)


@functools.cache  # by all ways to compute a step with the same network
def predict_peak(
    network: UNetConfig,
    loss: LossConfig,
    precision: Precision,
    *,
    recompute: bool,
    sides: tuple[int, ...] | None = None,
) -> StepPeak:
    """Predict what a step takes on a GPU by its voxels: two batches are counted, and a line laid through them."""
    sides = sides or network.round_up_sides((SIDE[network.dimensions],) * network.dimensions)
    execution = Execution(activation_checkpointing=recompute)
    two, three = (
        count_step_bytes(network, loss, precision, sides=sides, batch=batch, execution=execution) for batch in (2, 3)
    )
    with torch.device("meta"):
        weights = sum(weight.nbytes for weight in _make(network, execution).parameters())
    return StepPeak(
        weights=weights,
        fixed=3 * two - 2 * three,
        per_voxel=round((three - two) / torch.Size(sides).numel()),
    )


def count_step_bytes(
    network: UNetConfig,
    loss: LossConfig,
    precision: Precision,
    *,
    sides: Sequence[int],
    batch: int,
    execution: Execution | None = None,
    on_gpu: bool = True,
) -> int:
    """Bytes at the peak of a forward and a backward pass: weights, gradients, activations, loss and the batch itself.

    Gradients are there from the start, as in all parts of a step but the first. What the optimiser keeps is left out.
    Where `execution` leaves the layout open, features lie as they do by default. Raises NotPredictedError.
    """
    told = execution or Execution()
    if on_gpu and told.channels_last is None and network.network is None:
        told = replace(told, channels_last=True)
    settled = settle_execution(told, torch.device("cuda" if on_gpu else "cpu"), precision, network)
    try:
        return _count(network, loss, precision, sides, batch=batch, execution=settled, on_gpu=on_gpu)
    except Exception as error:
        if network.network is None and loss.function is None:
            raise
        names = " and ".join(name for name in (network.network, loss.function) if name)
        raise NotPredictedError(f"of {names} it cannot be predicted ({type(error).__name__})") from error


def _count(
    network: UNetConfig,
    loss: LossConfig,
    precision: Precision,
    sides: Sequence[int],
    *,
    batch: int,
    execution: Execution,
    on_gpu: bool,
) -> int:
    with torch.device("meta"):
        model = _make(network, execution).train()
    with FakeTensorMode(), LiveBytes(workspace=on_gpu) as live:
        make_fake(model)
        if on_gpu:
            use_gpu_norms(model)
        image = torch.empty(
            batch, network.modalities, *sides, dtype=torch.float16 if precision.use_scaler else torch.float32
        )
        regions = torch.empty(batch, network.regions, *sides, dtype=torch.uint8)
        with precision.autocast(image.device):
            outputs = model(image)
        total = Loss(loss, add_up=lambda sums: sums, region_labels=network.region_labels)(outputs, regions)
        del outputs
        total.backward()
    return live.peak


def _make(network: UNetConfig, execution: Execution) -> Network:
    """The network as it is, never compiled."""
    return UNet(network, execution) if network.network is None else ImportedNetwork(network, execution)


class LiveBytes(TorchDispatchMode):
    """Counts what the tensors that operations return occupy together: `now`, and at most so far `peak`.

    Memory that an operation takes and frees within itself is not seen; with `workspace` a convolution is allowed as
    much as its operands occupy.
    """

    def __init__(self, *, workspace: bool = False) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._workspace = workspace
        self._sizes: dict[int, int] = {}  # of each storage

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._add(tensor.untyped_storage())
        within = sum(each.nbytes for each in _tensors(args)) if self._workspace and function in CONVOLUTIONS else 0
        self.peak = max(self.peak, self.now + within)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:  # else a view, or what was changed in place
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._take_off, key)

    def _take_off(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def make_fake(model: Network) -> None:
    """Give a network from the meta device fake weights on the CPU, in its memory layout, and their gradients."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            fake = torch.empty(weight.shape)
            if model.execution.channels_last and weight.ndim == model.config.dimensions + 2:
                fake = fake.contiguous(memory_format=channels_last_format(model.config.dimensions))
            parameter = nn.Parameter(fake)
            parameter.grad = torch.empty_like(fake)
            setattr(module, name, parameter)
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def use_gpu_norms(model: nn.Module) -> None:
    """Let normalisation do what it does on a GPU."""
    for module in model.modules():
        if isinstance(module, Norm):
            module.forward = module.forward_on_gpu  # type: ignore[method-assign]


def _tensors(values: Any) -> Iterable[Tensor]:
    return (each for each in tree_leaves(values) if isinstance(each, Tensor))
