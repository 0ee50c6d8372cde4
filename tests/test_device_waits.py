"""The counter of waits counts each kind, and nothing that costs none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.device_waits import DeviceWaits

GPU = torch.device("cpu")  # as far as the counter knows
WAITING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "to": lambda x: x.to("cpu"),
    "__bool__": lambda x: bool(x[0] > 0),
    "__float__": lambda x: float(x[0]),
    "__int__": lambda x: int(x[0]),
    "__index__": lambda x: range(x[0].long()),
    "__contains__": lambda x: 3 in x,
    "nonzero": lambda x: x.nonzero(),
    "where": lambda x: torch.where(x > 0),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": torch.unique,
    "equal": lambda x: torch.equal(x, x),
    "bincount": lambda x: torch.bincount(x.long(), minlength=9),
    "histc": lambda x: torch.histc(x),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "__getitem__": lambda x: x[x > 0],
    "__setitem__": lambda x: x.clone().__setitem__(x > 0, x[:2]),
    "tensor": lambda _: torch.tensor([1.0, 2.0], device=GPU),
    "as_tensor": lambda _: torch.as_tensor(1.0, device=GPU),
    "new_tensor": lambda x: x.new_tensor(1.0),
    "copy_": lambda x: torch.empty_like(x).copy_(torch.zeros(3)),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "fill": lambda x: (torch.full_like(x, 2.0), torch.zeros(3, device=GPU), x.new_zeros(2), x.masked_fill(x > 0, 1.0)),
    "choose": lambda x: torch.where(x > 0, x, 0.0),
    "slice": lambda x: (x[0], x[1:], x[:, None]),
    "own device": lambda x: (x.to(GPU), x.to(torch.float64), x.clone().copy_(x)),
    "bounds": lambda x: (torch.histc(x, 4, min=0, max=4), x.repeat_interleave(2)),
    "host alone": lambda _: (torch.tensor([1.0], device="cpu") + torch.ones(1)).tolist(),
    "in its own time": lambda x: (x.copy_(torch.zeros(3), non_blocking=True), torch.ones(3).to(GPU, non_blocking=True)),
    "shapes": lambda x: (len(x), x.shape, x.numel(), list(x)),
}


@pytest.mark.parametrize("kind", WAITING)
def test_each_kind_is_counted_once_with_its_place(kind: str) -> None:
    on_device = torch.tensor([0.0, 1.0, 2.0])
    with DeviceWaits() as waits:
        WAITING[kind](on_device)
    (wait,) = [found for found in waits.found if found.startswith(f"{kind} ")]
    assert wait.startswith(f"{kind} at tests/test_device_waits.py:")


@pytest.mark.parametrize("kind", FREE)
def test_what_waits_for_nothing_is_not_counted(kind: str) -> None:
    on_device = torch.tensor([0.0, 1.0, 2.0])
    with DeviceWaits() as waits:
        FREE[kind](on_device)
    assert waits.found == []


def test_torchs_own_python_is_seen() -> None:
    """GradScaler's step asks whether a gradient is infinite, with an optimiser that is not fused."""
    layer = nn.Linear(1, 1)
    optimiser, scaler = torch.optim.SGD(layer.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    with DeviceWaits() as waits:
        scaler.scale(layer(torch.ones(1, device=GPU)).sum()).backward()
        scaler.step(optimiser)
        scaler.update()
    assert [wait.split()[0] for wait in waits.found] == ["item"]
