"""Named runs. Each docstring states command, hardware, time and score where they were measured, and else says so.

IoU here is by plain rules (docs/scores.md).
"""

import dataclasses
import difflib
from collections.abc import Callable

from dali_pipelines import AUGMENTATION_PRESETS, SamplingConfig
from models import PYTORCH3DUNET_LOSS, UNET_PRESETS, LossConfig
from ray_jobs.settings.config import BY_MEMORY, TrainConfig
from ray_jobs.settings.groups import CheckpointConfig, OptimiserConfig, ValidationConfig
from storage import Frame, InputError, SplitConfig


def demo() -> TrainConfig:
    """`python ray_jobs/train.py`: the synthetic cohort on a laptop's CPU.

    Measured with five seeds in bfloat16 and float32 on two cores of an AMD EPYC (AVX-512): mean IoU 0.814 to 0.899 on
    validation, 0.822 to 0.903 on test cases (`python -m benchmarks demo-seeds`). docs/models.md has what was tried.
    Two patches a rank at least: on a CPU, PyTorch computes a convolution of a single small patch four times slower.
    """
    return TrainConfig(
        dashboard=False,  # it takes ten of the start's processes
        epochs=8,
        sampling=SamplingConfig(
            dimensions=3,
            patch_shape=(40, 40, 40),
            global_batch_size=4,
            patches_per_epoch=240,
            foreground_fraction=0.5,
        ),
        augmentation=AUGMENTATION_PRESETS["light"],
        model=UNET_PRESETS["tiny"],
        optimiser=OptimiserConfig(learning_rate=6e-3),
        validation=ValidationConfig(overlap=0.5, window_batch=4),
    )


def laptop() -> TrainConfig:
    """`python ray_jobs/train.py --source DIR --preset laptop`: real scans on two CPU cores.

    48 epochs took 94.6 CPU-minutes on an Intel Xeon with AMX; without bfloat16 24 take as long. Predicts in windows of
    the patch's shape: whole heads are as good on some scans and lose 0.12 Dice on others. See docs/results.md.
    """
    return TrainConfig(
        epochs=48,
        splits=SplitConfig(validation_fraction=0.125, test_fraction=0.25),
        sampling=SamplingConfig(
            dimensions=3,
            patch_shape=(96, 96, 96),
            global_batch_size=2,
            patches_per_epoch=200,
            foreground_fraction=0.5,
        ),
        augmentation=AUGMENTATION_PRESETS["nnunet"],
        model=UNET_PRESETS["strided"],
        optimiser=OptimiserConfig(learning_rate=2e-3, warmup_steps=50, ema_decay=0.998),
        validation=ValidationConfig(mirror=True, every=6),
    )


def brats3d() -> TrainConfig:
    """`python ray_jobs/train.py --preset brats3d`: nnU-Net's 3-D network, patches and augmentation, on GPUs.

    Patches of 128³, or smaller ones where cases or GPUs are too small; how many at once hangs on the smallest GPU.
    Not measured yet.
    """
    return TrainConfig(
        gpu=True,
        by_memory=BY_MEMORY,
        epochs=200,
        sampling=SamplingConfig(dimensions=3, patch_shape=(128, 128, 128), global_batch_size=4, patches_per_epoch=1000),
        augmentation=AUGMENTATION_PRESETS["nnunet"],
        model=UNET_PRESETS["nnunet"],
        optimiser=OptimiserConfig(name="sgd", learning_rate=1e-2, weight_decay=3e-5),
        validation=ValidationConfig(overlap=0.5, every=5),
    )


def g4dn() -> TrainConfig:
    """`python ray_jobs/train.py --preset g4dn`: nnU-Net's 3-D network on T4s (16 GB) of AWS g4dn spot instances.

    float16; a checkpoint every five minutes, and as many restarts as it takes. The global batch of 4 stays as it is on
    one, two or four T4s, and by what is predicted of its memory a T4 computes two 128³ patches at once. Not measured
    yet.
    """
    return dataclasses.replace(
        brats3d(),
        max_failures=100,
        micro_batch_size=2,  # where memory does not settle it
        checkpoints=CheckpointConfig(every_minutes=5, keep_best=2),
    )


def resenc_m() -> TrainConfig:
    """`python ray_jobs/train.py --preset resenc_m`: nnU-Net's residual encoder M as it plans it for BraTS, on GPUs.

    Two patches of 128³ a step, Dice of each sample, 1000 epochs of 250 steps. The plan is nnU-Net's, so memory settles
    neither patch nor batch, only how many at once and whether activations are recomputed: docs/models.md says what card
    that takes. Not trained yet: steps as of an H200 in docs/gpu.md take five hours; nnU-Net's took 12 on an A100.
    """
    base = brats3d()
    return dataclasses.replace(
        base,
        by_memory=("micro_batch_size", "execution.activation_checkpointing"),
        epochs=1000,
        sampling=dataclasses.replace(base.sampling, global_batch_size=2, patches_per_epoch=500),
        model=UNET_PRESETS["resenc"],
        loss=LossConfig(dice="sample"),  # a step is then the same however many patches are computed at once
        validation=dataclasses.replace(base.validation, every=25),
    )


def resenc_l() -> TrainConfig:
    """`python ray_jobs/train.py --preset resenc_l`: nnU-Net's residual encoder L as it plans it for BraTS, on GPUs.

    M's network with three patches of 160 x 192 x 160 a step, which hold whole heads: smaller ones are padded. Not
    trained yet; nnU-Net's took 35 hours on an A100.
    """
    base = resenc_m()
    sampling = dataclasses.replace(
        base.sampling, patch_shape=(160, 192, 160), global_batch_size=3, patches_per_epoch=750
    )
    return dataclasses.replace(base, sampling=sampling)


def brats2d() -> TrainConfig:
    """`python ray_jobs/train.py --preset brats2d`: a 2-D U-Net on axial slices.

    Measured on the synthetic cohort with `--epochs 3` on two cores: 5 min, mean IoU 0.901 on validation and 0.911 on
    test cases.
    """
    return TrainConfig(
        epochs=6,
        sampling=SamplingConfig(dimensions=2, patch_shape=(96, 96), global_batch_size=16, patches_per_epoch=1600),
        augmentation=AUGMENTATION_PRESETS["light"],
        model=UNET_PRESETS["tiny2d"],
        optimiser=OptimiserConfig(learning_rate=3e-3),
        validation=ValidationConfig(window_batch=16),
    )


def cs231n3d() -> TrainConfig:
    """`python ray_jobs/train.py --preset cs231n3d --source DIR`: cs231n-3d-segmentation's 3-D run, on GPUs.

    Whole scans without five slices at each end, scaled to [0, 1]; pytorch-3dunet's UNet3D, BCEDice and Adam.
    Not measured yet; imported weights predict as they did (tests/ray_jobs/test_cs231n.py).
    """
    return dataclasses.replace(
        cs231n2d(),
        ready_batches=2,  # whole scans, 80 MB each on a T4
        sampling=SamplingConfig(
            dimensions=3,
            patch_shape=(145, 240, 240),
            global_batch_size=1,
            patches_per_epoch=295,
            foreground_fraction=0.0,
        ),
        model=UNET_PRESETS["unet3d"],
        validation=ValidationConfig(whole=True, head_only=False, window_batch=1),
    )


def cs231n2d() -> TrainConfig:
    """`python ray_jobs/train.py --preset cs231n2d --source DIR`: the same on axial slices with UNet2D.

    Not measured yet.
    """
    return TrainConfig(
        gpu=True,
        epochs=10,
        normalisation="minmax",
        frame=Frame(grid="scan", drop_slices=5),
        sampling=SamplingConfig(
            dimensions=2, patch_shape=(240, 240), global_batch_size=16, patches_per_epoch=42775, foreground_fraction=0.0
        ),
        augmentation=AUGMENTATION_PRESETS["none"],
        model=UNET_PRESETS["unet2d"],
        loss=PYTORCH3DUNET_LOSS,
        optimiser=OptimiserConfig(
            name="adam", learning_rate=5e-4, schedule="plateau", weight_decay=0.0, clip_norm=None, warmup_steps=0
        ),
        validation=ValidationConfig(whole=True, head_only=False, window_batch=16),
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    make.__name__: make for make in (demo, laptop, brats3d, g4dn, resenc_m, resenc_l, brats2d, cs231n3d, cs231n2d)
}


def preset(name: str) -> TrainConfig:
    """Return the named preset. Raises InputError with the names there are."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"--preset must be one of {', '.join(PRESETS)}, got {name!r}{hint}")
    return dataclasses.replace(PRESETS[name](), preset=name)
