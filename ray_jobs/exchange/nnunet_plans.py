"""nnU-Net v2's plans.json and dataset.json: the network, its windows, scans and regions as ours, or a refusal by name.

Source: nnU-Net v2, documentation/explanation_plans_files.md and region_based_training.md. Imports no PyTorch.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models import UNetConfig
from models.region_forest import find_parents, left_over_labels
from storage import InputError, Task
from storage.labels.conventions import STORED_LABEL_NAMES
from storage.scans.label_names import UnclearLabelsError, convention_by_names
from storage.scans.naming import modality_named

PLANS, DATASET = "plans.json", "dataset.json"
_BLOCKS = {"PlainConvUNet": ("plain", "n_conv_per_stage"), "ResidualEncoderUNet": ("residual", "n_blocks_per_stage")}
_OTHERS = "other networks, windows and resampling are not brought"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planned:
    """What the files say: a network for `scans` whose outputs are the task's regions in the order `outputs`."""

    model: UNetConfig
    patch_shape: tuple[int, int, int]
    scans: tuple[str, ...]
    outputs: tuple[int, ...]
    """For each of the task's regions the number of the network's output."""
    dataset: str


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return what one of the files says; raises InputError where it is missing or no JSON object."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"wanted a results folder of nnU-Net v2 with {PLANS} and {DATASET}, {folder / name} cannot be read: {error}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"wanted an object in {folder / name}, found {type(content).__name__}")
    return content


def read_plans(folder: Path, configuration: str, task: Task) -> Planned:
    """Return the configuration of that name as ours; raises InputError, naming it, for what ours cannot say."""
    plans, dataset = read_json(folder, PLANS), read_json(folder, DATASET)
    plan = _configuration(plans, configuration)
    scans = _read_scans(dataset, folder)
    _refuse(plans.get("transpose_forward"), [0, 1, 2], "transpose_forward")
    _refuse(plan.get("spacing"), [1.0, 1.0, 1.0], "spacing")
    _refuse(plan.get("normalization_schemes"), ["ZScoreNormalization"] * len(scans), "normalization_schemes")
    _refuse(plan.get("use_mask_for_norm"), [True] * len(scans), "use_mask_for_norm")
    _refuse(plan.get("previous_stage"), None, "previous_stage")
    model = _read_network(plan.get("architecture") or {}, len(scans), len(task.regions))
    patch = tuple(int(side) for side in plan.get("patch_size", ()))
    try:
        model.check_sides(patch)
    except ValueError as error:
        raise InputError(f"{PLANS}: patch_size {patch}: {error}") from None
    return Planned(
        model=model,
        patch_shape=(patch[0], patch[1], patch[2]),
        scans=scans,
        outputs=_read_outputs(dataset, task, folder),
        dataset=str(plans.get("dataset_name", "")),
    )


def _refuse(found: Any, wanted: Any, name: str) -> None:
    if found != wanted:
        raise InputError(f"{PLANS}: wanted {name} {wanted}, found {found}: {_OTHERS}")


def _configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """With what it inherits."""
    known = plans.get("configurations", {})
    if name not in known:
        raise InputError(f"wanted the checkpoint's configuration {name} in {PLANS}, found {', '.join(known) or 'none'}")
    own = dict(known[name])
    parent = own.pop("inherits_from", None)
    return own if parent is None else _configuration(plans, parent) | own


def _read_scans(dataset: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    channels = dataset.get("channel_names") or {}
    names = [str(channels[key]) for key in sorted(channels, key=int)]
    scans = [modality_named(name) for name in names]
    known = tuple(scan for scan in scans if scan is not None)
    if not known or len(set(known)) < len(names):
        raise InputError(
            f"wanted channel_names of {folder / DATASET} that name different scans of BraTS (flair, t1, t1ce, t2), "
            f"found {', '.join(names) or 'none'}; correct them there"
        )
    return known


def _read_network(architecture: Mapping[str, Any], scans: int, regions: int) -> UNetConfig:
    if "network_class_name" not in architecture:
        raise InputError(
            f"wanted the network's class in {PLANS} (architecture.network_class_name), found none: plans of nnU-Net "
            "before 2.5 do not say it, and are not brought"
        )
    name, told = architecture["network_class_name"].rpartition(".")[2], architecture["arch_kwargs"]
    if name not in _BLOCKS:
        raise InputError(f"{PLANS}: wanted a network of {' or '.join(_BLOCKS)}, found {name}: {_OTHERS}")
    block, counted = _BLOCKS[name]
    levels = int(told["n_stages"])
    _refuse(told["conv_op"].rpartition(".")[2], "Conv3d", "conv_op")
    _refuse(_each(told["kernel_sizes"], levels), [[3, 3, 3]] * levels, "kernel_sizes")
    _refuse(_each(told["strides"], levels), [[1, 1, 1], *[[2, 2, 2]] * (levels - 1)], "strides")
    _refuse(str(told["norm_op"]).rpartition(".")[2], "InstanceNorm3d", "norm_op")
    _refuse({"eps": 1e-5, **(told.get("norm_op_kwargs") or {})}, {"eps": 1e-5, "affine": True}, "norm_op_kwargs")
    _refuse(told.get("dropout_op"), None, "dropout_op")
    _refuse(str(told["nonlin"]).rpartition(".")[2], "LeakyReLU", "nonlin")
    _refuse({**(told.get("nonlin_kwargs") or {}), "inplace": True}, {"inplace": True}, "nonlin_kwargs")
    odd = ("nonlin_first", "squeeze_excitation", "stem_channels", "bottleneck_channels", "stochastic_depth_p")
    for argument in odd:
        _refuse(told.get(argument) or None, None, argument)
    decoder = _repeat(told["n_conv_per_stage_decoder"], levels - 1)
    _refuse(decoder, decoder[:1] * (levels - 1), "n_conv_per_stage_decoder")
    return UNetConfig(
        modalities=scans,
        regions=regions,
        widths=tuple(_repeat(told["features_per_stage"], levels)),
        block="plain" if block == "plain" else "residual",
        encoder_blocks=tuple(_repeat(told[counted], levels)),
        decoder_blocks=decoder[0],
        deep_supervision=levels - 2,
    )


def describe_architecture(config: UNetConfig) -> dict[str, Any]:
    """Return what plans.json says of a network that lacks nothing (`missing_parts`)."""
    levels, residual = len(config.widths), config.block == "residual"
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    told = {
        "n_stages": levels,
        "features_per_stage": list(config.widths),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3] * 3] * levels,
        "strides": [[1] * 3, *[[2] * 3] * (levels - 1)],
        _BLOCKS[name][1]: list(config.encoder_blocks or ((1 if residual else 2),) * levels),
        "n_conv_per_stage_decoder": [config.decoder_blocks] * (levels - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": told,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def missing_parts(config: UNetConfig) -> list[str]:
    """Return what nnU-Net's networks have and this one has not, in words; of nothing it is one of theirs."""
    wanted = {
        "3-D": config.dimensions == 3,
        "instance normalisation": config.norm_groups is None and config.block != "pre_norm",
        "strided and transposed convolutions": config.down == "strided" and config.up == "transposed",
        "no stride before its first level": config.stem_stride == 1,
        "a head of regions": config.head == "regions",
    }
    return [name for name, found in wanted.items() if not found]


def _repeat(told: int | Sequence[int], count: int) -> list[int]:
    return [told] * count if isinstance(told, int) else list(told)


def _each(told: Any, levels: int) -> list[list[int]]:
    """Sides of each level; a number stands for three."""
    each = [told] * levels if isinstance(told, int) else list(told)
    return [[one] * 3 if isinstance(one, int) else list(one) for one in each]


def _read_outputs(dataset: Mapping[str, Any], task: Task, folder: Path) -> tuple[int, ...]:
    """For each of the task's regions the number of the output; raises InputError for labels that are not those."""
    where = folder / DATASET
    order = dataset.get("regions_class_order")
    if order is None:
        raise InputError(
            f"wanted a network of regions, {where} has labels that exclude each other (no regions_class_order): their "
            "softmax and argmax are not brought"
        )
    try:
        stored = convention_by_names(dataset, ()).stored_by_source
    except UnclearLabelsError as error:
        raise InputError(f"{where} does not say what its labels mean: {error}; name them there") from None
    values = [value for value in dataset["labels"].values() if value not in (0, [0])]
    regions = [frozenset(stored[value] for value in (each if isinstance(each, list) else [each])) for each in values]
    wanted = [frozenset(region.labels) for region in task.regions]
    if sorted(map(sorted, regions)) != sorted(map(sorted, wanted)):
        found = "; ".join(", ".join(STORED_LABEL_NAMES[label] for label in sorted(region)) for region in regions)
        raise InputError(
            f"wanted the regions of {task.name} ({', '.join(task.region_names)}), {where} has {found}; say its --task"
        )
    labels = tuple(tuple(sorted(region)) for region in regions)
    parents, left = find_parents(labels), left_over_labels(tuple(task.regions[wanted.index(r)].labels for r in regions))
    behind = all(parent is None or parent < index for index, parent in enumerate(parents))
    if [stored.get(value) for value in order] != list(left) or not behind:
        raise InputError(
            f"{where}: wanted regions_class_order that paints each region behind those around it, in the value of what "
            f"no inner one takes, found {order}; predictions would not be its own"
        )
    return tuple(regions.index(region) for region in wanted)
