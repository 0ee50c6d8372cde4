"""A checkpoint folder: weights anyone can load, and all state that an exact resume needs.

model.safetensors   weights under plain names, without wrapper prefixes
state.pt            optimiser, schedule, scaler, loader position, epoch; loads with weights_only=True
config.json         the resolved configuration, the store's digest, modalities and regions
thresholds.json     the best threshold per region on the validation cases of that epoch
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

MODEL, STATE, CONFIG, THRESHOLDS = "model.safetensors", "state.pt", "config.json", "thresholds.json"


def write_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    state: Mapping[str, Any],
    config: Mapping[str, Any],
    thresholds: Mapping[str, float],
) -> None:
    """Write the four files into `folder`, which must exist."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, folder / MODEL)
    torch.save(dict(state), folder / STATE)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (folder / THRESHOLDS).write_text(json.dumps(dict(thresholds), indent=2) + "\n")


def read_weights(folder: Path, model: nn.Module) -> None:
    """Load `folder`'s weights into `model`. Raises RuntimeError naming missing and unexpected weights."""
    model.load_state_dict(safetensors.torch.load_file(folder / MODEL))


def read_state(folder: Path) -> dict[str, Any]:
    """Return the training state of `folder`, on the CPU."""
    state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    return state


def read_thresholds(folder: Path) -> dict[str, float]:
    """Return the threshold per region that was best on the validation cases of that checkpoint."""
    thresholds: dict[str, float] = json.loads((folder / THRESHOLDS).read_text())
    return thresholds
