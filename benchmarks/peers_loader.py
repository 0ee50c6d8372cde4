"""The training loaders of nnU-Net v2, MONAI and TorchIO beside ours, on the same cases and by the same clock.

Each yields float32 patches of 4 x 128^3 with labels, about a third of them placed on tumour, with its own augmentation
of the nnU-Net kind, in this process and with one thread: CPU milliseconds a patch are what a rented machine pays. Ours
has two rows: with the graph on the CPU, and what the CPU still does when the graph runs on a GPU.
The peers are not dependencies: install nnunetv2, monai and torchio beside the project; those absent are left out.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.cost import Cost, time_patches
from benchmarks.loader import measure_feed, measure_loader
from benchmarks.report import report
from benchmarks.settings import LoaderBenchmark, PeersLoaderBenchmark
from benchmarks.stores import open_cohort
from dali_pipelines import SamplingConfig
from storage import CohortStore, normalisation_coefficients, open_store

PATCH = (128, 128, 128)
LABELS = (1, 2, 3)

# nnU-Net's ranges: rotation in radians, scale, probabilities as in its trainer.
ROTATION = 0.52
SCALE = (0.7, 1.4)


@dataclass(frozen=True, kw_only=True)
class PlainCase:
    """A case as peers want it: image float32 (4, D, H, W), z-scored; label uint8 (D, H, W), 0 to 3."""

    name: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]


Patches = Iterator[Any]


def run(config: PeersLoaderBenchmark) -> None:
    """Measure ours, then each peer that is installed."""
    torch.set_num_threads(1)
    store = open_store(config.store)
    costs = measure_ours(store, config.patches)
    cases = load_cases(store)
    for name, (package, open_peer) in PEERS.items():
        if find_spec(package) is None:
            continue
        torch.manual_seed(0)
        patches = open_peer(cases)
        take(patches, 2)
        costs[f"{name} {version(package)}"] = time_patches(
            partial(take, patches, config.patches), patches=config.patches
        )
    rows = [{"loader": name} | cost.milliseconds() for name, cost in costs.items()]
    report(f"Training loaders, a 4x128^3 patch, {len(cases)} cases", rows, config.json)


def measure_ours(store: CohortStore, patches: int) -> dict[str, Cost]:
    """Our loader with nnU-Net's augmentation."""
    config = LoaderBenchmark(store=store.uri)
    sampling = SamplingConfig(patch_shape=PATCH, global_batch_size=config.batch_size, patches_per_epoch=10_000)
    with tempfile.TemporaryDirectory() as folder:
        cache = open_cohort(store.uri, Path(folder))
        return {
            "ours, on the CPU": measure_loader(cache, config, sampling, "cpu", patches=patches),
            "ours, the CPU's part where the graph runs on a GPU": measure_feed(
                cache, config, sampling, patches=patches
            ),
        }


def take(patches: Patches, count: int) -> None:
    """Ask for that many patches and check the first's shape."""
    for _ in range(count):
        image = next(patches)
        if tuple(image.shape[-4:]) != (4, *PATCH):
            raise RuntimeError(f"wanted patches of 4 x 128^3, the loader gave {tuple(image.shape)}")


def load_cases(store: CohortStore) -> list[PlainCase]:
    """Every labelled case, normalised as ours are."""
    cases = []
    for info in store.infos():
        arrays = store.read_case(info.case_id)
        if arrays.label_DHW is not None:
            scale, offset = (c.reshape(4, 1, 1, 1) for c in normalisation_coefficients(info, "zscore"))
            brain = (arrays.image_MDHW != 0).any(axis=0)
            image = (arrays.image_MDHW * scale + offset) * brain
            label = np.where(np.isin(arrays.label_DHW, LABELS), arrays.label_DHW, 0)
            cases.append(PlainCase(name=info.case_id, image=image.astype(np.float32), label=label.astype(np.uint8)))
    return cases


def open_nnunet(cases: Sequence[PlainCase]) -> Patches:
    """nnU-Net v2's data loader over its own Blosc2 files with its trainer's transforms."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, tempfile.gettempdir())
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112  (its own spelling)
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import get_patch_size, nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    folder = tempfile.TemporaryDirectory()
    for case in cases:
        save_for_nnunet(case, Path(folder.name))
    angles = (-ROTATION, ROTATION)
    labels = LabelManager({"background": 0, "necrotic": 1, "edema": 2, "enhancing": 3}, None)
    transforms = nnUNetTrainer.get_training_transforms(
        PATCH, angles, None, (0, 1, 2), do_dummy_2d_data_aug=False, is_cascaded=False,
        foreground_labels=labels.foreground_labels, regions=None, ignore_label=None,
    )  # fmt: skip
    larger = tuple(int(side) for side in get_patch_size(PATCH, angles, angles, angles, (0.85, 1.25)))
    loader = nnUNetDataLoader(
        nnUNetDatasetBlosc2(folder.name), 1, larger, PATCH, labels, oversample_foreground_percent=0.33,
        sampling_probabilities=None, pad_sides=None, transforms=transforms, probabilistic_oversampling=True,
    )  # fmt: skip
    while True:
        yield next(loader)["data"]
        assert folder.name  # the folder lives as long as this generator


def save_for_nnunet(case: PlainCase, folder: Path) -> None:
    """One case as nnU-Net's preprocessing would leave it."""
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    label = case.label[None].astype(np.int8)
    rng = np.random.default_rng(0)
    places = {value: rng.permutation(np.argwhere(label == value))[:10_000] for value in LABELS}
    blocks, chunks = comp_blosc2_params(case.image.shape, PATCH, case.image.itemsize)
    label_blocks, label_chunks = comp_blosc2_params(label.shape, PATCH, label.itemsize)
    properties = {"class_locations": places, "shape_before_cropping": case.image.shape}
    nnUNetDatasetBlosc2.save_case(
        case.image, label, properties, str(folder / case.name),
        chunks=chunks, blocks=blocks, chunks_seg=label_chunks, blocks_seg=label_blocks,
    )  # fmt: skip


def open_monai(cases: Sequence[PlainCase]) -> Patches:
    """MONAI dictionary transforms with nnU-Net's list, cases held in memory."""
    import monai.transforms as mt

    keys = ["image", "label"]
    zoom = tuple((low - 1, high - 1) for low, high in [SCALE] * 3)
    affine = mt.RandAffined(
        keys, prob=0.36, rotate_range=(ROTATION,) * 3, scale_range=zoom, mode=("bilinear", "nearest"),
        padding_mode="zeros", cache_grid=True, spatial_size=PATCH,
    )  # fmt: skip
    transforms = mt.Compose([
        mt.RandCropByPosNegLabeld(keys, "label", PATCH, pos=1, neg=2, num_samples=1, allow_smaller=True),
        mt.SpatialPadd(keys, PATCH),
        affine,
        mt.RandGaussianNoised("image", prob=0.1, std=0.1),
        mt.RandGaussianSmoothd("image", (0.5, 1), (0.5, 1), (0.5, 1), prob=0.2),
        mt.RandScaleIntensityd("image", 0.25, prob=0.15),
        mt.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
        mt.RandSimulateLowResolutiond("image", prob=0.25, zoom_range=(0.5, 1.0)),
        *(mt.RandFlipd(keys, 0.5, axis) for axis in range(3)),
    ])  # fmt: skip
    return run_monai(transforms, cases)


def open_monai_plain(cases: Sequence[PlainCase]) -> Patches:
    """MONAI with the few transforms of its BraTS tutorial."""
    import monai.transforms as mt

    keys = ["image", "label"]
    transforms = mt.Compose([
        mt.RandCropByPosNegLabeld(keys, "label", PATCH, pos=1, neg=2, num_samples=1, allow_smaller=True),
        mt.SpatialPadd(keys, PATCH),
        *(mt.RandFlipd(keys, 0.5, axis) for axis in range(3)),
        mt.RandScaleIntensityd("image", 0.1, prob=1.0),
        mt.RandShiftIntensityd("image", 0.1, prob=1.0),
    ])  # fmt: skip
    return run_monai(transforms, cases)


def run_monai(transforms: Callable[[dict[str, Any]], Any], cases: Sequence[PlainCase]) -> Patches:
    """Patches of one case after another."""
    items = [{"image": torch.from_numpy(case.image), "label": torch.from_numpy(case.label[None])} for case in cases]
    for item in cycle(items):
        yield transforms(item)[0]["image"]


def open_torchio(cases: Sequence[PlainCase]) -> Patches:
    """TorchIO's uniform sampler and transforms nearest to nnU-Net's list."""
    import torchio as tio

    transforms = tio.Compose([
        tio.RandomFlip((0, 1, 2), flip_probability=0.5),
        tio.RandomAffine(scales=SCALE, degrees=30, p=0.36),
        tio.RandomNoise(std=(0, 0.1), p=0.1),
        tio.RandomBlur((0.5, 1), p=0.2),
        tio.RandomGamma(p=0.3),
    ])  # fmt: skip
    pad = tio.CropOrPad(tuple(max(sides) for sides in zip(PATCH, *(c.label.shape for c in cases), strict=True)))
    sampler = tio.UniformSampler(PATCH)
    subjects = [
        pad(
            tio.Subject(
                image=tio.ScalarImage(tensor=torch.from_numpy(case.image)),
                label=tio.LabelMap(tensor=torch.from_numpy(case.label[None])),
            )
        )
        for case in cases
    ]
    for subject in cycle(subjects):
        yield transforms(next(iter(sampler(subject, 1))))["image"].data


PEERS: dict[str, tuple[str, Callable[[Sequence[PlainCase]], Patches]]] = {
    "nnU-Net v2": ("nnunetv2", open_nnunet),
    "MONAI, nnU-Net's list": ("monai", open_monai),
    "MONAI, its BraTS tutorial": ("monai", open_monai_plain),
    "TorchIO": ("torchio", open_torchio),
}
