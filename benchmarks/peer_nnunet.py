"""nnU-Net v2's own preprocessing of BraTS cases, as `nnUNetv2_plan_and_preprocess` does it: read, crop, z-score, save.

Run by the convert benchmark with a Python that has nnunetv2 (2.8) and need not have what this project needs. Prints one
line of JSON. The plan is the one that nnU-Net makes for BraTS at 1 mm, so nothing is resampled.
Source: Isensee et al. 2021, "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation".
"""

import json
import os
import sys
import tempfile
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks.cost import conversion_figures, time_call

MODALITIES = ("flair", "t1", "t1ce", "t2")


def configuration() -> dict[str, Any]:
    """nnU-Net's 3d_fullres configuration for BraTS."""
    resample = {"order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": "peer_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [128, 128, 128],
        "median_image_size_in_voxels": [138.0, 170.0, 138.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * 4,
        "use_mask_for_norm": [True] * 4,
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **resample},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **resample},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **resample},
        "architecture": {"network_class_name": "unused", "arch_kwargs": {}, "_kw_requires_import": []},
        "batch_dice": False,
    }


def plans() -> dict[str, Any]:
    """The plans file around the configuration."""
    intensity = dict.fromkeys(("min", "mean", "median", "percentile_00_5"), 0.0)
    intensity |= dict.fromkeys(("max", "percentile_99_5", "std"), 1.0)
    return {
        "dataset_name": "peer",
        "plans_name": "peer",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [140, 171, 137],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration()},
        "experiment_planner_used": "peer",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(index): intensity for index in range(4)},
    }


def prepare_label(folder: Path, target: Path) -> Path:
    """The segmentation with 4 written as 3, as nnU-Net wants consecutive labels; not part of what is measured."""
    import nibabel
    import numpy as np

    (path,) = folder.glob("*_seg.nii*")
    image = nibabel.load(path)
    label = np.asanyarray(image.dataobj)
    written = target / f"{folder.name}_seg.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.where(label == 4, 3, label).astype(np.uint8), image.affine), written)
    return written


def main(folders: list[Path]) -> None:
    """Measure the preprocessing of each case; the first once before, so that imports do not count."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, tempfile.gettempdir())
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(1)
    manager = PlansManager(plans())
    dataset = {
        "channel_names": {str(index): name for index, name in enumerate(MODALITIES)},
        "labels": {"background": 0, "ncr": 1, "ed": 2, "et": 3},
        "numTraining": len(folders),
        "file_ending": ".nii.gz",
    }
    preprocessor = DefaultPreprocessor(verbose=False)
    plan = manager.get_configuration("3d_fullres")
    with tempfile.TemporaryDirectory() as scratch:
        labels = {folder: prepare_label(folder, Path(scratch)) for folder in folders}
        first, timed = Path(scratch) / "first", Path(scratch) / "timed"  # apart: blosc2 files are never written over

        def preprocess(folder: Path, out: Path) -> None:
            scans = [str(next(folder.glob(f"*_{modality}.nii*"))) for modality in MODALITIES]
            preprocessor.run_case_save(str(out / folder.name), scans, str(labels[folder]), manager, plan, dataset)

        first.mkdir()
        preprocess(folders[0], first)
        timed.mkdir()
        cost = time_call(lambda: list(map(preprocess, folders, repeat(timed))))
        print(json.dumps(conversion_figures(cost, list(timed.iterdir()), cases=len(folders))))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
