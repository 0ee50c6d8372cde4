"""nnU-Net v2 itself, run as a program: a results folder with seeded random weights, and its logits of a case.

`python nnunet_peer.py plain|residual FOLDER` writes plans.json, dataset.json, fold_0/checkpoint_final.pth, and
logits.npz, every second voxel of the logits, of the case that `make_scans` draws; with a .npy of scans, of those (then
patches are of 96³ and nothing is mirrored). `given` instead of a kind reads a folder that is there. nnU-Net adds its
windows up in float16, here it is told float32.

`python nnunet_peer.py presets FOLDER` writes nnunet_presets.json: what its planners of the residual encoders M and L
make of BraTS, and the shapes of those networks' weights.

What lies in data/nnunet_* is what this wrote with nnunetv2 2.8.1.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")  # not our order
LABELS = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [1, 3], "enhancing tumor": 3}
PATCH, WIDTHS = (16, 24, 16), (4, 6, 8)
# Of the heads of BraTS, cropped as nnU-Net crops them, z y x: the medians of the Decathlon's 484 cases (Isensee et al.
# 2021) and of 16 cases of 2018.
MEDIANS = ((138, 169, 138), (137, 170, 140))


def make_scans() -> NDArray[np.int16]:
    """A head with two enclosed zeros in all four scans, wider than a patch along two axes: (M, D, H, W) in LPS."""
    random = np.random.default_rng(7)
    scans = random.integers(200, 900, (4, 30, 28, 17)).astype(np.int16)
    grid = np.stack(np.meshgrid(*(np.linspace(-1.15, 1.15, side) for side in scans.shape[1:]), indexing="ij"))
    scans[:, (grid**2).sum(0) > 1] = 0
    scans[:, 15, 14, 8:10] = 0
    scans[0, 12:14, 10, 8] = 0
    return scans


def architecture(kind: str, widths: Sequence[int]) -> dict[str, Any]:
    """A network of nnU-Net's as its plans name it."""
    levels = len(widths)
    name = {"plain": "PlainConvUNet", "residual": "ResidualEncoderUNet"}[kind]
    blocks = {"plain": {"n_conv_per_stage": [2] * levels}, "residual": {"n_blocks_per_stage": [1, 2, 2]}}[kind]
    told = {
        "n_stages": levels,
        "features_per_stage": list(widths),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3] * 3] * levels,
        "strides": [[1] * 3, *[[2] * 3] * (levels - 1)],
        **blocks,
        "n_conv_per_stage_decoder": [2 if kind == "plain" else 1] * (levels - 1),
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


def build_network(told: Mapping[str, Any]) -> Any:
    """The network of an architecture: nnU-Net's own, of four scans and three regions."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    return get_network_from_plans(*told.values(), 4, 3, deep_supervision=True)


def describe(kind: str, patch: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """plans.json and dataset.json."""
    from benchmarks.peer_nnunet import plans

    plan = plans()
    plan["dataset_name"] = "Dataset137_BraTS"
    plan["configurations"]["3d_fullres"] |= {"patch_size": list(patch), "architecture": architecture(kind, WIDTHS)}
    dataset = {
        "channel_names": {str(index): name for index, name in enumerate(CHANNELS)},
        "labels": LABELS,
        "regions_class_order": [2, 1, 3],
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    return plan, dataset


def write_results(kind: str, folder: Path, patch: tuple[int, ...], axes: tuple[int, ...] | None) -> None:
    """What nnUNetTrainer leaves behind, as its save_checkpoint has it."""
    import torch

    plan, dataset = describe(kind, patch)
    (folder / "fold_0").mkdir(parents=True)
    for name, content in (("plans.json", plan), ("dataset.json", dataset)):
        (folder / name).write_text(json.dumps(content, indent=1))
    torch.manual_seed(1)
    network = build_network(plan["configurations"]["3d_fullres"]["architecture"])
    for name, parameter in network.named_parameters():  # norms and biases too
        torch.nn.init.normal_(parameter, mean=float("norm.weight" in name), std=1.0 if "seg_layers" in name else 0.3)
    content = {
        "network_weights": network.state_dict(),
        "optimizer_state": None,
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "epoch_start_timestamps": [0.5]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 3,
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": axes,
    }
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")


def predict(predictor: Any, scans: NDArray[np.int16]) -> tuple[NDArray[np.float32], list[list[int]]]:
    """Its logits_RDHW of the box that it crops to, and that box."""
    import torch
    from nnunetv2.inference import predict_from_raw_data as module
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    properties = {"spacing": [1.0, 1.0, 1.0]}
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    image, _, properties = preprocessor.run_case_npy(
        scans, None, properties, predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    )
    real, half = module.compute_gaussian, torch.half
    module.compute_gaussian = lambda *given, **named: compute_gaussian(*given, **named | {"dtype": torch.float32})
    torch.half = torch.float32
    try:
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.asarray(image)))
    finally:
        module.compute_gaussian, torch.half = real, half
    return logits.numpy(), properties["bbox_used_for_cropping"]


def open_results(folder: Path) -> Any:
    """nnU-Net's predictor of a results folder."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False, verbose=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    return predictor


def plan_presets(folder: Path) -> dict[str, Any]:
    """What the planners of M and L make of a fingerprint of 1,251 cases at 1 mm, BraTS 2021's number.

    Raises AssertionError where it hangs on which of MEDIANS they have.
    """
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as own

    dataset = {
        "channel_names": {str(index): name for index, name in enumerate(CHANNELS)},
        "labels": LABELS,
        "regions_class_order": [2, 1, 3],
        "numTraining": 1251,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    raw, made = (folder / place / "Dataset137_BraTS" for place in ("nnUNet_raw", "nnUNet_preprocessed"))
    for place in (raw / "imagesTr", raw / "labelsTr", made):
        place.mkdir(parents=True)
    for channel in range(len(CHANNELS)):  # it wants a case's name
        (raw / "imagesTr" / f"case_{channel:04d}.nii.gz").touch()
    (raw / "labelsTr" / "case.nii.gz").touch()
    (raw / "dataset.json").write_text(json.dumps(dataset))
    presets: dict[str, Any] = {}
    for median in MEDIANS:
        shapes = [[side + step for side in median] for step in (-8, 0, 8)]
        fingerprint = {
            "spacings": [[1.0, 1.0, 1.0]] * len(shapes),
            "shapes_after_crop": shapes,
            "median_relative_size_after_cropping": float(np.prod(median) / (155 * 240 * 240)),
            "foreground_intensity_properties_per_channel": {},
        }
        (made / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
        for name, planner in (("M", own.nnUNetPlannerResEncM), ("L", own.nnUNetPlannerResEncL)):
            planner("Dataset137_BraTS").plan_experiment()
            plans = json.loads((made / f"nnUNetResEncUNet{name}Plans.json").read_text())
            plan = plans["configurations"]["3d_fullres"]
            del plan["median_image_size_in_voxels"]
            assert presets.setdefault(name, plan) == plan, f"{name} of {median}"
    return {
        name: {"plan": plan, "weights": count_weights(build_network(plan["architecture"]).named_parameters())}
        for name, plan in presets.items()
    }


def count_weights(weights: Iterable[tuple[str, Any]]) -> dict[str, dict[str, int]]:
    """By part of a network, how many of its named weights have which shape."""
    counted: dict[str, dict[str, int]] = {}
    for name, weight in weights:
        words = name.split(".")
        part = counted.setdefault(".".join(words[: 2 if words[1] == "stem" else 3]), {})
        shape = "x".join(map(str, weight.shape))
        part[shape] = part.get(shape, 0) + 1
    return counted


def main(kind: str, folder: str, scans: str | None = None) -> None:
    """Write the folder, unless its kind is `given`; with a .npy of scans in CHANNELS' order the logits of those."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        if kind == "presets":
            os.environ[name] = str(Path(folder) / name)
        os.environ.setdefault(name, tempfile.gettempdir())
    if kind == "presets":
        (Path(folder) / "nnunet_presets.json").write_text(json.dumps(plan_presets(Path(folder))) + "\n")
        return
    if kind != "given":
        how = (PATCH, (0, 1, 2)) if scans is None else ((96, 96, 96), None)
        write_results(kind, Path(folder), *how)
    logits, box = predict(open_results(Path(folder)), make_scans() if scans is None else np.load(scans))
    np.savez_compressed(Path(folder) / "logits.npz", logits=logits[:, ::2, ::2, ::2], box=box)


if __name__ == "__main__":
    main(*sys.argv[1:])
