"""What leads from scans to labels beside a network's weights, in words and numbers that no code of ours is needed for.

Letters in names: R region. Imports no PyTorch.
"""

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from models.region_forest import find_parents, left_over_labels, outermost_first
from ray_jobs.checkpoints.checkpoint import RECORD, Checkpoint, CheckpointRecord
from ray_jobs.checkpoints.lookup import read_config, read_modalities, read_store_digest
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY
from ray_jobs.checkpoints.trained_on import read_origin, read_spacing, read_task
from ray_jobs.evaluation.decision_file import encode_decision, read_decision
from ray_jobs.settings.config import TrainConfig
from ray_jobs.watching.provenance import git_commit
from storage import MODALITIES, InputError, Task
from storage.labels.conventions import STORED_LABEL_NAMES
from storage.store.objects import Objects

_BRAIN = "the voxels where any scan is not 0"
_SHIFTED = {
    "zscore": "(x - mean) / std of each scan, std of the population; 0 where std is 0",
    "minmax": "(x - low) / (high - low) of each scan, low = min(minimum, 0), high = maximum; 0 where they are equal",
}

_NNUNET_WINDOW = {
    "step": "evenly spread: ceil((image - side) / (side * (1 - overlap))) + 1 windows, from 0 to image - side, rounded",
    "weights": "Gaussian around side // 2, sigma side / 8, largest 1",
}


def describe_network(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return scans, normalisation, windows, decision and what labels mean, as JSON.

    Raises InputError for a checkpoint that was not validated, which has no decision, and for an imported network.
    """
    config, task = read_config(checkpoint), read_task(checkpoint)
    if config.model.network is not None:
        raise InputError(
            f"wanted one of our U-Nets in {checkpoint.uri}, it has {config.model.network}: its library has ways of its "
            "own to export it, and model.safetensors has the weights by its names"
        )
    decision = read_decision(checkpoint)
    if decision is None:
        raise InputError(
            f"wanted thresholds in {checkpoint.uri}, found none: it was not validated; give a checkpoint that was"
        )
    scans = read_modalities(checkpoint) or MODALITIES
    if len(scans) != config.model.modalities:
        raise InputError(
            f"wanted a network of the scans {', '.join(scans)}, {checkpoint.uri} has {config.model.modalities} and "
            "does not say which; give one that a newer version trained"
        )
    spacing, frame, brought = read_spacing(checkpoint), config.frame, read_origin(checkpoint)
    return {
        "scans": list(scans),
        "orientation": "LPS: axes z y x, x to the patient's left, y to the back, z up",
        "spacing_mm": None if spacing is None else list(spacing),
        "frame": {
            "grid": f"the smallest box with all of {_BRAIN}" if frame.grid == "head" else "the whole scan",
            "slices_left_out_at_each_end": frame.drop_slices,
            "outside": "no region",
        },
        "normalisation": _describe_normalisation(config, task, as_nnunet=brought is not None),
        "window": _describe_window(config, task) | (_NNUNET_WINDOW if brought else {}),
        "output": "logits of the regions in their order; "
        + ("the sigmoid of their mean over windows" if brought else "the mean over windows of their sigmoid")
        + " is the probability",
        **_describe_regions(task),
        "decision": encode_decision(decision, task.region_names) | {"components": 26, "overlap": "inner"},
        "task": {"name": task.name, "title": task.title, "skull_stripped": task.skull_stripped},
        "brought_from": brought,
        "made_with": {"brats-stream": version("brats-stream"), "commit": git_commit()},
    }


def _describe_normalisation(config: TrainConfig, task: Task, *, as_nnunet: bool) -> dict[str, Any]:
    return {
        "scheme": config.normalisation,
        "formula": _SHIFTED[config.normalisation],
        "statistics_over": _BRAIN + (", and those that they enclose" if as_nnunet else ""),
        "elsewhere": 0 if task.skull_stripped else "as in the brain",
    }


def _describe_window(config: TrainConfig, task: Task) -> dict[str, Any]:
    validation, dimensions = config.validation, config.model.dimensions
    return {
        "sides": None if validation.whole else list(config.sampling.patch_shape),
        "sides_mean": "z y x" if dimensions == 3 else "y x of each axial slice",
        "multiple": config.model.side_multiple,
        "smallest_side": config.model.smallest_side,
        "overlap": validation.overlap,
        "step": "max(int(side * (1 - overlap)), 1); the last window ends with the image",
        "weights": "Gaussian around (side - 1) / 2, sigma side / 8, largest 1, none below 0.001 or below the smallest",
        "padding": "where the image is smaller: on both sides, the odd voxel behind, with "
        + ("0" if task.skull_stripped else "what the value 0 became in each scan"),
        "mirrored_axes": list(range(3 - dimensions, 3)) if validation.mirror else [],
        "no_region_where_all_scans_are_0": validation.head_only and task.skull_stripped,
    }


def _describe_regions(task: Task) -> dict[str, Any]:
    """Regions and values as files have them."""
    labels = tuple(region.labels for region in task.regions)
    value_of = {stored: value for value, stored in sorted(task.convention.stored_by_source.items(), reverse=True)}
    parents, left_over = find_parents(labels), left_over_labels(labels)
    regions = [
        {
            "name": region.name,
            "title": region.title,
            "values": sorted(value_of[label] for label in region.labels if label in value_of),
            "value": value_of.get(left_over[index]),
            "inside": None if (around := parents[index]) is None else task.region_names[around],
        }
        for index, region in enumerate(task.regions)
    ]
    return {
        "regions": regions,
        "painted": [task.region_names[index] for index in outermost_first(labels)],
        "values": {str(value_of[label]): STORED_LABEL_NAMES[label] for label in sorted(value_of)},
    }


def describe_training(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a model card says of where the network comes from: as far as checkpoint and run folder tell it."""
    record = CheckpointRecord.decode(checkpoint.read(RECORD))
    config: Mapping[str, Any] = checkpoint.read_json(CONFIG)
    summary = _read_summary(checkpoint)
    return {
        "checkpoint": checkpoint.uri,
        "epoch": record.epoch,
        "rules": record.rules,
        "validation": dict(record.metrics),
        "store_digest": read_store_digest(checkpoint),
        "preset": config.get("made_with", {}).get("preset"),
        "summary": summary,
    }


def _read_summary(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The summary of the run whose best checkpoint this is; None where there is none, or another was its best."""
    folder, _, name = checkpoint.uri.rpartition("/")
    raw = Objects(folder).get(SUMMARY)
    summary: dict[str, Any] | None = None if raw is None else json.loads(raw)
    return summary if summary and str(summary.get("checkpoint")).endswith(f"/{name}") else None
