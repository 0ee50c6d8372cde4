"""Networks of other people's, by import path, made to answer as our U-Nets do.

Letters in names: B batch, M modality, R region, H the outputs of a stacked answer.
"""

import typing
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from models.config import Execution, UNetConfig
from models.import_path import arguments_for, find_named, in_a_line
from models.nested import region_logits_from_label_logits
from models.unet import UNet, as_executed, build_unet, channels_last_format


class ImportedNetwork(nn.Module):
    """forward(image_BM…) -> tuple of logits_BR…, finest first, as a U-Net's; the weights keep their own names."""

    def __init__(self, config: UNetConfig, execution: Execution) -> None:
        super().__init__()
        self.config = config
        self.execution = execution
        self.network = make_network(config)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return logits_BR…, finest first: in training as many as the network gives."""
        if self.execution.channels_last:
            image = image.contiguous(memory_format=channels_last_format(self.config.dimensions))
            # torch 2.13's group normalisation crashes in the backward pass of such an input that needs no gradient.
            image = image.detach().requires_grad_(self.training and torch.is_grad_enabled())
        outputs = logits_of(self.network(image), self.config)
        if self.training:
            return outputs
        if self.config.head == "labels":
            return tuple(region_logits_from_label_logits(each, self.config.region_labels) for each in outputs)
        return outputs

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The network's own, which its own library loads."""
        return self.network.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:  # noqa: FBT001, FBT002
        """The inverse of `state_dict`."""
        return self.network.load_state_dict(state_dict, strict=strict, assign=assign)


Network = UNet | ImportedNetwork
"""What `build_network` builds: image_BM… in, logits_BR… out, finest first, of as many levels as it is supervised at."""


def build_network(config: UNetConfig, execution: Execution | None = None) -> Network:
    """Build what `config` describes on the CPU: a U-Net (`build_unet`), or the network that it names.

    Raises ValueError where that cannot be imported or built.
    """
    if config.network is None:
        return build_unet(config, execution)
    execution = execution or Execution()
    return as_executed(ImportedNetwork(config, execution), execution, config.dimensions)


def make_network(config: UNetConfig) -> nn.Module:
    """Call what `config` names with its arguments. Raises ValueError.

    A checkpoint names it too, so only what can be nothing but a network is called: a class of nn.Module, or a function
    that is annotated to return one.
    """
    assert config.network is not None
    builder = find_named(config.network)
    if not _makes_networks(builder):
        raise ValueError(
            f"{config.network} is no class of torch.nn.Module, nor a function whose annotation says that it returns "
            "one: only such are called, since checkpoints name them too"
        )
    scans, regions, dimensions = config.modalities, config.outputs, config.dimensions
    given = arguments_for(
        builder,
        config.network,
        config.arguments,
        known={"scans": scans, "regions": regions, "dimensions": dimensions},
        automatic={"in_channels": scans, "out_channels": regions, "spatial_dims": dimensions},
        free=0,
    )
    try:
        made = builder(**given)
    except Exception as error:
        if is_of_meta(error):
            raise
        said = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(f"{config.network}({said}) fails: {in_a_line(error)}") from error
    if not isinstance(made, nn.Module):
        raise ValueError(f"{config.network} gives a {type(made).__name__}, wanted a torch.nn.Module")
    return made


def _makes_networks(builder: Any) -> bool:
    if isinstance(builder, type):
        return issubclass(builder, nn.Module)
    try:
        returned = typing.get_type_hints(builder).get("return")
    except Exception:  # whatever its annotations name that is not there
        return False
    return isinstance(returned, type) and issubclass(returned, nn.Module)


def logits_of(answer: Any, config: UNetConfig) -> tuple[Tensor, ...]:
    """Return a network's answer as logits_BR…, finest first: it may be one tensor, several, or BHR… of the same sides.

    Of equally fine ones the network's first stays first. Raises ValueError for any other.
    """
    if isinstance(answer, Tensor):
        outputs = list(answer.unbind(1)) if answer.ndim == config.dimensions + 3 else [answer]
    elif isinstance(answer, list | tuple) and answer and all(isinstance(each, Tensor) for each in answer):
        outputs = list(answer)
    else:
        raise ValueError(f"{config.network} answers with {_describe(answer)}: wanted logits, or a list of them")
    return tuple(sorted(outputs, key=lambda each: -each.shape[2:].numel()))


def is_of_meta(error: BaseException) -> bool:
    """Whether it is the meta device that cannot do what was asked, not the network."""
    return isinstance(error, NotImplementedError | DataDependentOutputException) or "meta" in str(error).lower()


def _describe(answer: Any) -> str:
    if isinstance(answer, dict):
        return f"a dict of {', '.join(map(str, answer))}"
    if isinstance(answer, list | tuple):
        inside = sorted({type(each).__name__ for each in answer})
        return f"a {type(answer).__name__} of {', '.join(inside) or 'nothing'}"
    return f"a {type(answer).__name__}"
