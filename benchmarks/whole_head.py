"""Whole heads through a trained network, as each library is shipped: what a case costs the CPU, and the Dice it gets.

Ours predicts the box around the head that the store keeps, in the windows that the checkpoint's run validated with.
MONAI gets the same network, arithmetic, windows at once and normalised scans, whole as its BraTS tutorial has them, and
beside that cut to the head by its CropForeground. The device is the CPU; on GPUs see the inference benchmark.

`python -m benchmarks whole-head --checkpoint runs/NAME`
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cost import time_call
from benchmarks.inference import keep_freed_memory
from benchmarks.report import report
from benchmarks.settings import WholeHeadBenchmark
from dali_pipelines import VolumeLoader
from models.thresholds import divide_or_one
from ray_jobs.evaluation.trained import TrainedNetwork, open_trained
from ray_jobs.settings.groups import ValidationConfig
from storage import DecodedCaseCache, InputError, open_store, split_cohort
from storage.cases.grid import box_slices

CUT = 0.5  # everywhere: this is not about thresholds
OVERLAP = 0.5  # of MONAI's windows, in its BraTS tutorial and its bundle


@dataclass(frozen=True, kw_only=True)
class Head:
    """A normalised case: all of the scan, the box of it that the store keeps, and the truth."""

    scan_MDHW: Tensor
    box: tuple[slice, ...]
    regions_RDHW: Tensor


Predict = Callable[[Head], Tensor]  # probabilities_RDHW of the whole scan


def run(config: WholeHeadBenchmark) -> None:
    """Predict the run's test cases with each, turn about."""
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    network = open_trained(config.checkpoint, torch.device("cpu"))
    heads = list(read_heads(network, config))
    contenders = {**ours(network), **monai(network)}
    spent: dict[str, float] = {}
    dice: dict[str, float] = {}
    with torch.inference_mode():
        for _ in range(config.rounds):
            for name, predict in contenders.items():
                found: list[Tensor] = []
                cost = time_call(lambda predict=predict, found=found: found.extend(map(predict, heads)))  # type: ignore[misc]
                spent[name] = min(cost.cpu / len(heads), spent.get(name, cost.cpu))
                dice[name] = mean_dice(found, heads)
    first = next(iter(spent.values()))
    rows = [
        {"what": name, "CPU-s a case": cpu, "of ours": cpu / first, "mean Dice at 0.5": dice[name]}
        for name, cpu in spent.items()
    ]
    sides = "x".join(map(str, heads[0].scan_MDHW.shape[1:]))
    title = f"Whole heads, {len(heads)} cases of {sides}, {network.config.preset}, {network.precision.name}"
    report(title, rows, config.json)


def read_heads(network: TrainedNetwork, config: WholeHeadBenchmark) -> Iterator[Head]:
    """Some of the test cases of the run that the network comes from."""
    store = open_store(config.store or store_of(config.checkpoint))
    case_ids = split_cohort(store, network.config.splits).test[: config.cases]
    if not case_ids:
        raise InputError(f"wanted a checkpoint whose run kept test cases, {network.uri} kept none of {store.uri}")
    cache = DecodedCaseCache(store, config.cache, max_bytes=1 << 40)
    frame = network.config.frame
    for volume in VolumeLoader(cache, case_ids, normalisation=network.config.normalisation, frame=frame):
        info = cache.info(volume.case_id)
        assert volume.regions_RDHW is not None
        box = box_slices(info.bbox)
        scan_MDHW = volume.image_MDHW.new_zeros((len(volume.image_MDHW), *info.original_shape))
        regions_RDHW = volume.regions_RDHW.new_zeros((len(volume.regions_RDHW), *info.original_shape))
        scan_MDHW[(slice(None), *box)] = volume.image_MDHW
        regions_RDHW[(slice(None), *box)] = volume.regions_RDHW
        yield Head(scan_MDHW=scan_MDHW, box=box, regions_RDHW=regions_RDHW)


def store_of(run: str) -> str:
    """The store that a finished run's folder names."""
    try:
        uri: str = json.loads((Path(run) / "summary.json").read_text())["store"]
    except OSError as error:
        raise InputError(f"wanted a finished run's folder, got {run}: give --store, or that folder") from error
    return uri


def ours(network: TrainedNetwork) -> dict[str, Predict]:
    """Ours as predict.py does it, and without mirror images where the run wanted those: MONAI makes none."""
    validation = network.config.validation
    plain = replace(validation, mirror=False)
    named = {"ours, as the run validated": validation}
    if not validation.whole and validation.overlap < OVERLAP:
        named["ours, windows overlapping as MONAI's"] = replace(validation, overlap=OVERLAP)
    if validation.mirror:
        named["ours, without mirror images"] = plain

    def predict(head: Head, settings: ValidationConfig) -> Tensor:
        image_MDHW = head.scan_MDHW[(slice(None), *head.box)]
        total = image_MDHW.new_zeros((len(head.regions_RDHW), *head.scan_MDHW.shape[1:]))
        total[(slice(None), *head.box)] = evaluators[settings].probabilities(image_MDHW)
        return total

    evaluators = {settings: network.evaluator(settings) for settings in named.values()}
    return {name: partial(predict, settings=settings) for name, settings in named.items()}


def monai(network: TrainedNetwork) -> dict[str, Predict]:
    """MONAI's sliding window around the same network; nothing where it isn't installed."""
    try:
        from monai.inferers import sliding_window_inference
        from monai.transforms import BorderPad, CropForeground
    except ImportError:
        print("left out MONAI: it is not installed (pip install .[dev])")
        return {}
    patch = tuple(network.config.sampling.patch_shape)
    at_once = network.config.validation.window_batch  # as ours: single small windows cost a CPU four times as much

    def probabilities(image: Tensor) -> Tensor:
        with network.precision.autocast(image.device):
            logits: Tensor = network.model(image)[0]
        return torch.sigmoid(logits.float())

    def slide(image_MDHW: Tensor, window: Sequence[int]) -> Tensor:
        mode = "constant" if tuple(window) != patch else "gaussian"
        result = sliding_window_inference(image_MDHW[None], window, at_once, probabilities, overlap=OVERLAP, mode=mode)
        assert isinstance(result, Tensor)
        return result[0]

    def tutorial(head: Head) -> Tensor:
        return slide(head.scan_MDHW, network.model.config.round_up_sides(head.scan_MDHW.shape[1:]))

    def windows(head: Head) -> Tensor:
        return slide(head.scan_MDHW, patch)

    def cropped(head: Head) -> Tensor:
        crop = CropForeground(return_coords=True, allow_smaller=True)
        image_MDHW, start, end = crop(head.scan_MDHW)
        inside = slide(torch.as_tensor(image_MDHW).contiguous(), patch)
        sides = zip(start, end, head.scan_MDHW.shape[1:], strict=True)
        padded = BorderPad([width for low, high, side in sides for width in (int(low), int(side - high))])(inside)
        return torch.as_tensor(padded)

    return {
        "MONAI, its BraTS tutorial: the scan at once": tutorial,
        "MONAI, the scan in windows of the patch's sides": windows,
        "MONAI, the same cut to the head first": cropped,
    }


def mean_dice(found: Sequence[Tensor], heads: Sequence[Head]) -> float:
    """Mean over cases and regions at a threshold of 0.5; 1 where a region is empty in both."""
    values = []
    for probabilities_RDHW, head in zip(found, heads, strict=True):
        predicted, truth = (probabilities_RDHW >= CUT).flatten(1), head.regions_RDHW.bool().flatten(1)
        values.append(divide_or_one(2 * (predicted & truth).sum(1), predicted.sum(1) + truth.sum(1)))
    return float(torch.stack(values).mean())
