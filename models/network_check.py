"""Whether an imported network takes the run's patches and answers with its regions: asked before anything starts.

Letters in names: B batch, M modality, R region.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.config import Execution, UNetConfig
from models.import_path import in_a_line
from models.imported_network import ImportedNetwork, is_of_meta, logits_of

HINT_MULTIPLES = (8, 16, 32, 64)  # of sides that are tried where a patch is not taken


class _RefusedError(ValueError):
    """The network's own code does not take these patches."""


@functools.cache  # asked at the door, and again where the store is known
def check_network(config: UNetConfig, sides: tuple[int, ...]) -> None:
    """Raise ValueError, with shapes and names, unless the network takes patches of `sides` and answers with regions.

    Nothing is computed where the network runs on the meta device; else a single patch is, on the CPU.
    """
    try:
        try:
            _check_on(torch.device("meta"), config, sides, batch=2)
        except Exception as error:  # whatever the network's own code raises
            if not is_of_meta(error.__cause__ or error):
                raise
            with torch.random.fork_rng(devices=()):
                _check_on(torch.device("cpu"), config, sides, batch=1)
    except _RefusedError as error:
        raise ValueError(f"{error}{_hint(config, sides)}") from error


def _check_on(device: torch.device, config: UNetConfig, sides: Sequence[int], *, batch: int) -> None:
    with device, torch.no_grad():
        network = ImportedNetwork(config, Execution())
        image = torch.zeros(batch, config.modalities, *sides)
        for training in (True, False):
            for level, output in enumerate(_ask(network.train(training), image)):
                _check_output(config, output, image, finest=level == 0, when="in training" if training else "")


def _ask(network: ImportedNetwork, image: Tensor) -> tuple[Tensor, ...]:
    try:
        answer = network.network(image)
    except Exception as error:
        name = network.config.network
        raise _RefusedError(f"{name} does not take patches {_named(image.shape)}: {in_a_line(error)}") from error
    return logits_of(answer, network.config)


def _check_output(config: UNetConfig, output: Tensor, image: Tensor, *, finest: bool, when: str) -> None:
    """Raise ValueError unless logits have a channel for each output, and the finest the image's sides."""
    sides = tuple(image.shape[2:])
    fits = output.ndim == image.ndim and output.shape[1] == config.outputs
    if fits and (tuple(output.shape[2:]) == sides or not finest):
        return
    what = "logits" if finest else "coarser logits"
    wanted = (len(image), config.outputs, *(sides if finest else "…"))
    raise ValueError(
        f"{config.network} answers patches {_named(image.shape)} with {what} {_named(output.shape)} {when}".rstrip()
        + f", wanted {_named(wanted)}: the {config.modalities} scans and {config.outputs} regions are handed over as "
        "in_channels and out_channels; under other names give them as {scans} and {regions} in --model.arguments"
    )


def _hint(config: UNetConfig, sides: Sequence[int]) -> str:
    """Which sides near these the network does take."""
    for multiple in HINT_MULTIPLES:
        near = tuple(max(1, round(side / multiple)) * multiple for side in sides)
        try:
            _check_on(torch.device("meta"), config, near, batch=2)
        except Exception:  # this way or another: no hint
            continue
        return f"; it takes {' x '.join(map(str, near))}"
    return ""


def _named(shape: Sequence[Any]) -> str:
    return f"({', '.join(map(str, shape))})"
