"""One of two data-parallel workers of test_rank_sums.py: python data_parallel_worker.py RANK FOLDER.

Runs one forward and backward pass of each loss on a fixed batch: first alone on all of it, then on this worker's share
under DDP over gloo. Saves losses and gradients of both.
"""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from models import PYTORCH3DUNET_LOSS, Loss, LossConfig, UNetConfig, build_unet

LOSSES = {
    "batch": LossConfig(),
    "sample": LossConfig(dice="sample"),
    "ce": LossConfig(voxel="ce"),
    "focal": LossConfig(dice="none", voxel="focal"),
    "pytorch3dunet": PYTORCH3DUNET_LOSS,
}
# Unequal shares, which a mean of the workers' means would get wrong.
SHARES = (slice(0, 3), slice(3, 4))

Results = dict[str, dict[str, Tensor]]


def _run(mine: slice) -> Results:
    torch.manual_seed(0)
    image, regions = torch.randn(4, 4, 8, 8, 8), (torch.rand(4, 3, 8, 8, 8) < 0.3).to(torch.uint8)
    results: Results = {}
    for name, config in LOSSES.items():
        torch.manual_seed(1)
        network = build_unet(UNetConfig(widths=(4, 8, 8), deep_supervision=1))
        parallel: nn.Module = network
        if distributed.is_initialized():
            parallel = nn.parallel.DistributedDataParallel(network)
        loss = Loss(config)(parallel(image[mine]), regions[mine])
        loss.backward()
        gradients = {key: value.grad for key, value in network.named_parameters() if value.grad is not None}
        results[name] = {"loss": loss.detach(), **gradients}
    return results


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    alone = _run(slice(None))
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save({"alone": alone, "together": _run(SHARES[rank])}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # while the interpreter is taken down, a thread of gloo that wants it would abort the process
