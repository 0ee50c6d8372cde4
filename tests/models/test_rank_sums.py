import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.rank_sums import sum_over_ranks

WORKER = Path(__file__).with_name("data_parallel_worker.py")


@pytest.mark.processes
def test_two_workers_give_one_workers_loss_and_gradients(tmp_path: Path) -> None:
    """After DDP's averaging, for every loss, though the workers' shares of the batch differ."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen([sys.executable, str(WORKER), str(rank), str(tmp_path)], env=environment) for rank in range(2)
    ]
    try:
        assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert set(first["alone"]) == {"batch", "sample", "ce", "focal", "pytorch3dunet"}
    for loss, wanted in first["alone"].items():
        assert len(wanted) > 10
        for name, value in wanted.items():
            came = first["together"][loss][name]
            scale = max(float(value.abs().max()), 1e-3)
            torch.testing.assert_close(came, value, rtol=1e-4, atol=1e-5 * scale, msg=f"{loss}: {name}")
            assert torch.equal(came, second["together"][loss][name])


def test_without_a_process_group_nothing_is_added() -> None:
    sums = torch.ones(3)
    assert sum_over_ranks(sums) is sums
