"""Counts what would make the host wait for a GPU, on a machine without one.

`DeviceWaits` sees every call of torch that Python makes while it is entered, inside torch's own Python too (optimisers,
GradScaler, clipping), and takes each tensor for one that lies on a GPU. Those that were made without a `device`, or for
the literal "cpu", and what is computed from such alone, lie on the host, where reading costs nothing.

It sees only what goes through torch's functions, so not
- what one operation does inside, in C++: those that copy a result back to the host on CUDA are listed here by name,
  from torch 2.13's sources (`READING`, `waits_inside`);
- what one of torch's Python functions that are overridden as a whole does inside (`functional.interpolate`, …);
- the backward pass, which C++ runs;
- what a GPU computes in another way than a CPU (`features.is_cuda`), and waits that are no operation on a tensor:
  events, streams, collectives.

`torch.cuda.set_sync_debug_mode` on a GPU sees all of these but the last.
"""

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What Python reads of a tensor, and operations whose result's size, or whose own checks, the host must read first.
READING = {
    *("item", "tolist", "cpu", "numpy", "__array__"),
    *("__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__format__", "__repr__"),
    *("equal", "allclose", "is_nonzero"),  # answer with a bool
    *("nonzero", "nonzero_numpy", "argwhere", "masked_select", "unique", "unique_consecutive"),  # as large as they find
    "bincount",  # reads the least and the greatest value, minlength or not
}
# Given Python's numbers they copy from memory that is not page-locked, and torch waits for the copy.
COPYING = {"tensor", "as_tensor", "asarray", "new_tensor"}
OURS = Path(__file__).parents[1]


class DeviceWaits(TorchFunctionMode):
    """Use it as a context manager; `found` then names each wait, as "item at models/precision.py:122"."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, function: Callable[..., Any], _: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name: str = getattr(function, "__name__", "")
        if would_wait(name, args, kwargs):
            self.found.append(f"{name} at {place()}")
        result = function(*args, **kwargs)
        if made_on_host(name, args, kwargs):
            for tensor in tensors_in(result):
                tensor.lies_on_host = True  # type: ignore[attr-defined]
        return result


def would_wait(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether this call waits where the tensors that are not on the host are on a GPU."""
    given = list(tensors_in((args, kwargs)))
    on_device = [tensor for tensor in given if not on_host(tensor)]
    if name in COPYING:  # from a tensor on the device to one on the device nothing is waited for
        wanted_there = names_device(kwargs.get("device")) or (name == "new_tensor" and not on_host(args[0]))
        data = args[1] if name == "new_tensor" else args[0]
        return wanted_there and not (isinstance(data, Tensor) and not on_host(data))
    if name in ("to", "cuda", "copy_"):
        return not kwargs.get("non_blocking") and crosses(name, args, kwargs)
    return bool(on_device) and (name in READING or waits_inside(name, args, kwargs))


def crosses(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether values go from host to device or back."""
    if name == "copy_":
        return on_host(args[0]) != on_host(args[1])
    if name == "cuda":
        return on_host(args[0])
    places = [each for each in (*args[1:], *kwargs.values()) if isinstance(each, torch.device | str | Tensor)]
    return any(
        on_host(args[0]) != on_host(each) if isinstance(each, Tensor) else on_host(args[0]) == names_device(each)
        for each in places
    )


def waits_inside(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Operations that wait with some arguments and not with others."""
    if name == "where":
        return len(args) + len(kwargs) == 1  # nonzero by another name
    if name in ("__getitem__", "__setitem__"):
        picked = args[1] if isinstance(args[1], tuple) else (args[1],)
        # A mask is nonzero's; a list is copied to the device; a tensor of one index is read like an item.
        return any(isinstance(each, list) or (isinstance(each, Tensor) and reads_index(each)) for each in picked)
    if name == "repeat_interleave":
        return isinstance((*args, *kwargs.values())[1], Tensor) and "output_size" not in kwargs
    # Without bounds it looks for them.
    return name == "histc" and kwargs.get("min", 0) == kwargs.get("max", 0)


def reads_index(index: Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8) or index.ndim == 0 or on_host(index)


def made_on_host(name: str, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the call's tensors lie on the host: read to it, or made from nothing but what lies there."""
    if name in ("cpu", "numpy") or (name == "to" and "cpu" in args):
        return True
    given = list(tensors_in((args, kwargs)))
    return not any(map(names_device, (*args, kwargs.get("device")))) and all(map(on_host, given))


def names_device(value: Any) -> bool:
    """Whether it is the name of a device other than the host, for which product code never writes "cpu"."""
    return isinstance(value, torch.device) or (isinstance(value, str) and value != "cpu")


def on_host(tensor: Tensor) -> bool:
    return getattr(tensor, "lies_on_host", False)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors among arguments or results, however they are nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)


def place() -> str:
    """The nearest line of the project that is being run."""
    for frame in reversed(traceback.extract_stack()):
        file = Path(frame.filename)
        if file.is_relative_to(OURS) and "site-packages" not in file.parts and file != Path(__file__):
            return f"{file.relative_to(OURS)}:{frame.lineno}"
    return "elsewhere"
