"""A network as a results folder of nnU-Net v2, which nnUNetv2_predict runs by nnU-Net's own way through a case.

Source: nnU-Net v2, documentation/explanation_plans_files.md; nnUNetTrainer.save_checkpoint.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import torch

from models import UNetConfig
from ray_jobs.exchange.nnunet_plans import DATASET, PLANS, describe_architecture, missing_parts
from ray_jobs.exchange.nnunet_weights import to_theirs
from ray_jobs.exchange.plain_network import FinestLogits
from storage import InputError
from storage.scans.label_names import TISSUES_KEY

FILE, CARD = "fold_0/checkpoint_final.pth", "model_card.md"
RUNS = (
    "With nnU-Net v2 (2.5 or newer), the scans as `CASE_0000.nii.gz` … in the order above:",
    "",
    "```",
    "nnUNetv2_predict_from_modelfolder -i CASES -o SEGMENTATIONS -m THIS_FOLDER -f 0",
    "```",
    "",
    "or, as `$nnUNet_results/Dataset137_BraTS/nnUNetTrainer__nnUNetPlans__3d_fullres`, with",
    "`nnUNetv2_predict -d 137 -c 3d_fullres -f 0`. nnU-Net goes its own way from scans to labels: its windows, 0.5 as",
    "every region's threshold, nothing left out. What this page says of windows and of the decision is our way.",
)
_TRAINER, _CONFIGURATION = "nnUNetTrainer", "3d_fullres"


def encode(network: FinestLogits, config: UNetConfig, description: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the folder's files but for its card. Raises InputError for a network that nnU-Net does not have."""
    _refuse_others(config, description)
    weights = to_theirs(network.network.state_dict(), config)
    mirrored = description["window"]["mirrored_axes"]
    content = {
        "network_weights": weights,
        "init_args": {"configuration": _CONFIGURATION, "fold": 0},
        "trainer_name": _TRAINER,
        "inference_allowed_mirroring_axes": tuple(mirrored) or None,
        "current_epoch": 0,
    }
    checkpoint = io.BytesIO()
    torch.save(content, checkpoint)
    files = {PLANS: describe_plans(config, description), DATASET: describe_dataset(description)}
    encoded = {name: (json.dumps(file, indent=2) + "\n").encode() for name, file in files.items()}
    return {FILE: checkpoint.getvalue(), **encoded}


def _refuse_others(config: UNetConfig, description: Mapping[str, Any]) -> None:
    around = {
        "windows": description["window"]["sides"] is not None,
        "z-score": description["normalisation"]["scheme"] == "zscore",
        "skull-stripped scans": description["task"]["skull_stripped"],
        "the head's box": "box" in description["frame"]["grid"],
    }
    if missing := missing_parts(config) + [name for name, found in around.items() if not found]:
        lacks = ", ".join(missing)
        raise InputError(f"wanted a network as nnU-Net has it, this one is without {lacks}; give it as onnx")


def describe_plans(config: UNetConfig, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return plans.json, as far as a prediction reads it."""
    scans, spacing = description["scans"], description["spacing_mm"] or [1.0, 1.0, 1.0]
    plan: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": description["window"]["sides"],
        "median_image_size_in_voxels": description["window"]["sides"],
        "spacing": spacing,
        "normalization_schemes": ["ZScoreNormalization"] * len(scans),
        "use_mask_for_norm": [True] * len(scans),
        "batch_dice": False,
        "architecture": describe_architecture(config),
    }
    for what, order, is_seg in (("data", 3, False), ("seg", 1, True), ("probabilities", 1, False)):
        plan[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        how = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        plan[f"resampling_fn_{what}_kwargs"] = how
    unread = dict.fromkeys(("min", "max", "mean", "median", "std", "percentile_00_5", "percentile_99_5"), 0.0)
    return {
        "dataset_name": "Dataset137_BraTS",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": description["window"]["sides"],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "brats-stream",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(index): unread for index in range(len(scans))},
        "configurations": {_CONFIGURATION: plan},
    }


def describe_dataset(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return dataset.json; nnU-Net wants values 1, 2, 3 … without a gap."""
    values = sorted(int(value) for value in description["values"] if value != "0")
    counted = {value: index for index, value in enumerate(values, 1)}
    regions = description["regions"]
    each = {region["title"]: [counted[value] for value in region["values"]] for region in regions}
    names = {str(counted[value]): description["values"][str(value)] for value in values}
    return {
        "channel_names": {str(index): name for index, name in enumerate(description["scans"])},
        "labels": {"background": 0} | {title: own if len(own) > 1 else own[0] for title, own in each.items()},
        "regions_class_order": [counted[region["value"]] for region in regions],
        "numTraining": 0,
        "file_ending": ".nii.gz",
        TISSUES_KEY: names,
    }
