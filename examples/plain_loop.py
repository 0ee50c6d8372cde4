"""The loader in a plain PyTorch loop with a network of one's own: `python examples/plain_loop.py --store cohort.zarr`.

`image` is float (B, M, D, H, W), normalised; `regions` is uint8 (B, R, D, H, W) of 0 and 1. Both lie on the device.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import nn

from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig
from storage import DecodedCaseCache, open_store, split_cohort


def make_network(modalities: int, regions: int) -> nn.Module:
    """Put yours here: (B, M, D, H, W) to logits (B, R, D, H, W)."""
    return nn.Sequential(nn.Conv3d(modalities, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, regions, 1))


def main(arguments: Sequence[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="as examples/conversion.py makes it: a path or an s3:// URL")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--side", type=int, default=32, help="voxels along each side of a patch")
    parser.add_argument("--patches", type=int, default=16, help="patches of an epoch")
    options = parser.parse_args(arguments)
    store = open_store(options.store)
    cases = split_cohort(store, remember=False).train
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    network = make_network(len(store.settings.modalities), len(store.task.regions)).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    sampling = SamplingConfig(
        patch_shape=(options.side,) * 3, global_batch_size=2, patches_per_epoch=options.patches, seed=1
    )
    losses = []
    with tempfile.TemporaryDirectory() as folder:  # keep it, and the next run need not decode the cases again
        cache = DecodedCaseCache(store, Path(folder), max_bytes=8 * 2**30)
        with PatchLoader(
            cache, cases, sampling=sampling, augmentation=AUGMENTATION_PRESETS["nnunet"], device=device
        ) as loader:
            for epoch in range(options.epochs):
                for batch in loader:
                    logits = network(batch.image)
                    loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.regions.float())
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                    losses.append(loss.item())
                print(f"epoch {epoch}: loss {fmean(losses[-loader.steps_per_epoch :]):.3f}")
            position = loader.state_dict()  # keep it beside the weights: load_state_dict goes on from there, exactly
    print(f"{len(losses)} steps, {loader.wait_seconds:.1f} s of waiting for data; epoch {position['epoch']} is next")
    return losses


if __name__ == "__main__":
    main()
