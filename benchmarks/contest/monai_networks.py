"""MONAI's SegResNet by its BraTS tutorial and its DynUNet; run as a program by the contests.

SegResNet: Dice loss, Adam, cosine to zero, flips and small changes of intensity, by brats_segmentation_3d.
DynUNet: MONAI's nnU-Net with the list of transforms of its dynunet_pipeline, Dice with cross-entropy for each region,
deep supervision, SGD with momentum, poly to zero. Both differ from those in that patches are cut from the head, half of
them around tumour, and that learning rates follow the budget.
Sources: Myronenko 2018, "3D MRI brain tumor segmentation using autoencoder regularization"; MONAI's tutorials.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contest.job import Job, run_program
from benchmarks.contest.learning import (
    CPU,
    arithmetic,
    describe_sizes,
    learn,
    rehearse_layout,
    seed_all,
    set_up,
    weights_file,
)
from benchmarks.contest.segmentations import (
    cases_left,
    label_file,
    raw_folder,
    region_values,
    scan_files,
    write_in_source_values,
)
from models.device_setup import fuses_optimiser

KEYS = ("image", "label")


def read_dataset(job: Job) -> dict[str, Any]:
    """dataset.json: scans, and the values of each region."""
    dataset: dict[str, Any] = json.loads((raw_folder(job) / "dataset.json").read_text())
    return dataset


def reading_transforms(job: Job, *, labelled: bool) -> list[Any]:
    """From files to z-scored scans, and a channel for each region, cropped to the head."""
    import monai.transforms as mt

    keys = KEYS if labelled else KEYS[:1]
    values = region_values(read_dataset(job))

    def as_regions(label: Tensor) -> Tensor:
        regions = [torch.isin(label[0], torch.tensor(of_region)) for of_region in values]
        return torch.stack([region.to(torch.float32) for region in regions])

    return [
        mt.LoadImaged(keys, ensure_channel_first=True, image_only=True),
        *([mt.Lambdad("label", as_regions)] if labelled else []),
        mt.Orientationd(keys, "RAS", labels=None),
        mt.CropForegroundd(keys, source_key="image"),
        mt.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
    ]


def prepare(job: Job) -> Mapping[str, Any]:
    """Do once for each case what is the same in every epoch, and keep it."""
    import monai.transforms as mt

    scans = len(read_dataset(job)["channel_names"])
    read = mt.Compose(reading_transforms(job, labelled=True))
    folder = Path(job.shared) / "monai"
    folder.mkdir(exist_ok=True)
    for case_id in job.train:
        case = read({"image": scan_files(job, case_id, scans), "label": label_file(job, case_id)})
        kept = {"image": case["image"].as_tensor().float(), "label": case["label"].as_tensor().to(torch.uint8)}
        torch.save(kept, folder / f"{case_id}.pt")
    return {}


def training_transforms(job: Job) -> list[Any]:
    """A patch of a cropped case, augmented as the method's own examples do."""
    import monai.transforms as mt

    patch = tuple(job.settings["patch"])
    cut = [
        mt.SpatialPadd(KEYS, patch),
        mt.RandCropByPosNegLabeld(KEYS, "label", patch, pos=1, neg=1, num_samples=1, image_key="image"),
    ]
    flips = [mt.RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)]
    if job.settings["network"] == "segresnet":
        return [
            *cut,
            *flips,
            mt.RandScaleIntensityd("image", factors=0.1, prob=1.0),
            mt.RandShiftIntensityd("image", offsets=0.1, prob=1.0),
        ]
    smooth = {f"sigma_{axis}": (0.5, 1.15) for axis in "xyz"}
    return [
        *cut,
        mt.RandZoomd(KEYS, min_zoom=0.9, max_zoom=1.2, mode=("trilinear", "nearest"), prob=0.16),
        mt.RandGaussianNoised("image", std=0.01, prob=0.15),
        mt.RandGaussianSmoothd("image", **smooth, prob=0.15),
        mt.RandScaleIntensityd("image", factors=0.3, prob=0.15),
        *flips,
    ]


def draw_batches(job: Job) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, each case as often as every other."""
    import monai.transforms as mt
    from monai.data import DataLoader, Dataset

    folder = Path(job.shared) / "monai"
    cases = [torch.load(folder / f"{case_id}.pt") for case_id in job.train]
    augment = mt.Compose(training_transforms(job))
    batch = job.settings["batch"]
    while True:
        # Of one pass over the cases half a batch may be left over.
        for items in DataLoader(Dataset(cases * batch, augment), batch_size=batch, shuffle=True):
            yield items["image"].as_tensor(), items["label"].as_tensor().float()


def build_network(job: Job, regions: int) -> nn.Module:
    """As the method's own examples do; DynUNet as deep as the patch allows."""
    from monai.networks.nets import DynUNet, SegResNet

    scans = len(read_dataset(job)["channel_names"])
    if job.settings["network"] == "segresnet":
        return SegResNet(
            blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1], init_filters=16, in_channels=scans, out_channels=regions,
            dropout_prob=0.2,
        )  # fmt: skip
    levels = int(math.log2(min(job.settings["patch"]) // 4)) + 1  # a coarsest level of 4 to 7 voxels a side
    return DynUNet(
        3, scans, regions, kernel_size=[3] * levels, strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1), norm_name="instance", deep_supervision=True, deep_supr_num=2,
    )  # fmt: skip


class DiceAndCrossEntropy(nn.Module):
    """MONAI's Dice and binary cross-entropy: its own sum of the two wants labels that exclude each other."""

    def __init__(self) -> None:
        super().__init__()
        from monai.losses import DiceLoss

        self.dice = DiceLoss(sigmoid=True, batch=True)
        self.cross_entropy = nn.BCEWithLogitsLoss()

    def forward(self, logits: Tensor, regions: Tensor) -> Tensor:
        return self.dice(logits, regions) + self.cross_entropy(logits, regions)


class NetworkSteps:
    """A Learner of one of MONAI's networks."""

    def __init__(self, job: Job) -> None:
        from monai.losses import DeepSupervisionLoss, DiceLoss

        self._is_segresnet = job.settings["network"] == "segresnet"
        self._rate = job.settings["learning_rate"]
        self.network = set_up(job, build_network(job, len(region_values(read_dataset(job))))).train()
        weights = self.network.parameters()
        if self._is_segresnet:
            self._loss = DiceLoss(smooth_nr=0, smooth_dr=1e-5, squared_pred=True, sigmoid=True)
            self._optimiser: Any = torch.optim.Adam(weights, self._rate, weight_decay=1e-5, fused=fuses_optimiser(CPU))
        else:
            self._loss = DeepSupervisionLoss(DiceAndCrossEntropy())
            self._optimiser = torch.optim.SGD(
                weights, self._rate, momentum=0.99, nesterov=True, weight_decay=3e-5, fused=fuses_optimiser(CPU)
            )
        self._batches = draw_batches(job)

    def step(self, share: float) -> None:
        fall = (1 + math.cos(math.pi * share)) / 2 if self._is_segresnet else (1 - share) ** 0.9
        self._optimiser.param_groups[0]["lr"] = self._rate * fall
        image, regions = next(self._batches)
        self._optimiser.zero_grad()
        with arithmetic().autocast(CPU):
            logits = self.network(image)
        if self._is_segresnet:
            self._loss(logits.float(), regions).backward()
        else:
            self._loss(list(logits.float().unbind(1)), regions).backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self._optimiser.step()

    def state(self) -> dict[str, Any]:
        return {"weights": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])


def rehearse(job: Job) -> Mapping[str, Any]:
    """Its cheaper layout."""
    dataset = read_dataset(job)
    network = build_network(job, len(region_values(dataset)))
    return rehearse_layout(network, len(dataset["channel_names"]), 3)


def train(job: Job) -> Mapping[str, Any]:
    """The method's steps for the budget."""
    seed_all(job.seed)
    sizes = describe_sizes(job.settings["patch"], job.settings["batch"])
    return {**learn(job, NetworkSteps(job)), "sizes": sizes}


@torch.inference_mode()
def predict(job: Job) -> Mapping[str, Any]:
    """MONAI's sliding window over the head, half overlapping; DynUNet's with Gaussian weights and, where wanted,
    mirrored, as its pipeline can. The tutorial does not mirror."""
    import monai.transforms as mt

    dataset, share = read_dataset(job), job.settings["share"]
    order = dataset.get("regions_class_order") or [values[0] for values in region_values(dataset)]
    network = set_up(job, build_network(job, len(order))).eval()
    network.load_state_dict(torch.load(weights_file(job, share)))
    read = mt.Compose(reading_transforms(job, labelled=False))
    back = mt.Invertd("logits", read, orig_keys="image", nearest_interp=False)
    for case_id, file in cases_left(job, job.predictions(share)).items():
        case = read({"image": scan_files(job, case_id, len(dataset["channel_names"]))})
        case["logits"] = case["image"].clone()
        case["logits"].set_(predict_case(network, case["image"].as_tensor()[None], job)[0])
        regions = back(case)["logits"].as_tensor() > 0
        label = np.zeros(regions.shape[1:], dtype=np.uint8)
        for mask, value in zip(regions.numpy(), order, strict=True):
            label[mask] = value  # later regions over earlier ones, as nnU-Net writes them
        scan = nib.load(scan_files(job, case_id, 1)[0])
        written = job.path(f"{case_id}.nii.gz")
        nib.save(nib.Nifti1Image(label, scan.affine), written)
        write_in_source_values(job, case_id, written, file)
    return {}


def predict_case(network: nn.Module, image: Tensor, job: Job) -> Tensor:
    """Logits, summed over the mirror images where those are wanted."""
    from monai.inferers import sliding_window_inference

    is_segresnet = job.settings["network"] == "segresnet"
    axes: Sequence[int] = () if is_segresnet or not job.settings["mirror"] else (2, 3, 4)
    mirrors = [list(chosen) for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)]
    mode = "constant" if is_segresnet else "gaussian"
    window = tuple(job.settings.get("window", job.settings["patch"]))
    total = torch.zeros(())
    for flipped in mirrors:
        with arithmetic().autocast(CPU):
            logits = sliding_window_inference(image.flip(flipped), window, 1, network, overlap=0.5, mode=mode)
        total = total + logits.float().flip(flipped)
    return total


if __name__ == "__main__":
    run_program({"prepare": prepare, "rehearse": rehearse, "train": train, "predict": predict})
