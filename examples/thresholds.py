"""Thresholds counted over any network's probabilities: `python examples/thresholds.py --store cohort.zarr`.

One pass counts every threshold of the grid at once; the network need not be ours, nor in PyTorch.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from dali_pipelines import VolumeLoader
from models import RegionScores, ThresholdCounts, sliding_window_probabilities
from storage import DecodedCaseCache, open_store


def predict(image_BMDHW: Tensor, regions: int) -> Tensor:
    """Put your network here. This one takes what is bright in the first modality for tumour: logits BRDHW."""
    return (image_BMDHW[:, :1] - 1.0).expand(-1, regions, -1, -1, -1)


def main(arguments: Sequence[str] | None = None) -> RegionScores:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--window", type=int, default=48, help="voxels along each side of a window")
    options = parser.parse_args(arguments)
    store = open_store(options.store)
    cases = [info.case_id for info in store.infos() if info.labelled]  # of a trained network: those that validate
    regions = store.task.region_names
    counts = ThresholdCounts(len(regions), num_thresholds=101)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        cache = DecodedCaseCache(store, Path(folder), max_bytes=8 * 2**30)
        for volume in VolumeLoader(cache, cases):
            assert volume.regions_RDHW is not None
            probabilities_RDHW = sliding_window_probabilities(
                lambda image: predict(image, len(regions)), volume.image_MDHW, window=(options.window,) * 3
            )
            counts.update(volume.case_id, probabilities_RDHW, volume.regions_RDHW)
    best, plain = counts.best_per_region("dice"), counts.at([0.5] * len(regions))
    for number, name in enumerate(regions):
        print(
            f"{name}: Dice {plain.dice[number]:.3f} at 0.5, "
            f"{best.dice[number]:.3f} at {best.threshold[number]:.2f}, the best of {counts.num_thresholds}"
        )
    print(f"of {best.cases} cases, which have chosen: others will score less")
    return best


if __name__ == "__main__":
    main()
