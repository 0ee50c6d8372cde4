"""A trained network of nnU-Net v2 as a checkpoint of ours: the same logits, by the same way through a case.

Source: nnU-Net v2, nnUNetTrainer.save_checkpoint.
"""

import dataclasses
import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import Decision, Execution, build_unet
from ray_jobs.checkpoints.checkpoint import RECORD, CheckpointRecord, encode_checkpoint
from ray_jobs.checkpoints.trained_on import encode_task
from ray_jobs.evaluation.decision_file import encode_decision
from ray_jobs.exchange.nnunet_plans import Planned, read_plans
from ray_jobs.exchange.nnunet_weights import from_theirs
from ray_jobs.settings.config import TrainConfig, run_identity
from ray_jobs.settings.groups import ValidationConfig
from ray_jobs.settings.presets import preset
from storage import InputError, Task

# Scores that its checkpoints keep are NumPy's numbers, under the names of both of its versions.
_NUMBERS: list[Any] = [
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
]


def bring(folder: Path, fold: str, file: str, task: Task) -> dict[str, bytes]:
    """Return the files of the checkpoint, its record last. Raises InputError for what cannot be the same network."""
    path = folder / f"fold_{fold}" / file
    content = load_safely(path)
    try:
        configuration, weights = content["init_args"]["configuration"], content["network_weights"]
    except (KeyError, TypeError):
        raise InputError(f"wanted a checkpoint of nnU-Net v2, {path} has no network_weights and init_args") from None
    planned = read_plans(folder, configuration, task)
    axes = content.get("inference_allowed_mirroring_axes")
    if axes is not None and sorted(axes) != [0, 1, 2]:
        raise InputError(f"{path}: wanted mirroring along all axes or none, found {tuple(axes)}, which ours cannot do")
    network = build_unet(planned.model, Execution(channels_last=False))
    try:
        network.load_state_dict(from_theirs(weights, planned.model, planned.outputs))
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise InputError(f"wanted the network of its plans in {path}, found another: {said}") from None
    origin = f"nnU-Net v2 ({planned.dataset}, {configuration}, {content.get('trainer_name')}, fold_{fold}/{file})"
    trained_on = encode_task(task, planned.scans, task.convention, [1.0, 1.0, 1.0])
    config = _configure(planned, mirror=axes is not None)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    files = encode_checkpoint(
        network,
        state={},
        config={**run_identity(config, digest), **trained_on, "brought_from": origin},
        decision=encode_decision(Decision.plain(len(task.regions)), task.region_names),
    )
    return files | {RECORD: CheckpointRecord(epoch=int(content.get("current_epoch", 0)), step=0).encode()}


def load_safely(path: Path) -> dict[str, Any]:
    """Return what a .pth holds: tensors, numbers and names. Raises InputError where it is missing or holds code."""
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"wanted a checkpoint at {path}, found none; say its --fold and --file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        said = next((line for line in str(error).splitlines() if "GLOBAL" in line or "global" in line), "it is damaged")
        raise InputError(
            f"wanted a checkpoint of tensors and numbers at {path}, which is not opened: {said.strip()}"
        ) from None
    return content


def _configure(planned: Planned, *, mirror: bool) -> TrainConfig:
    """What predict.py goes by: its windows overlap by half, and nothing is left out of its frame."""
    base = preset("brats3d")
    return dataclasses.replace(
        base,
        gpu=None,
        by_memory=(),
        precision="float32",
        model=planned.model,
        sampling=dataclasses.replace(base.sampling, patch_shape=planned.patch_shape),
        validation=ValidationConfig(overlap=0.5, mirror=mirror, head_only=False, window_batch=1),
    )
