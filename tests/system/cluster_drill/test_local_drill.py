"""`ray up cluster/local.yaml` on two machines that somebody owns, with a disk that both mount, and a run on them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.cluster_drill.hosts import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]  # as test_aws_drill.py: it orders them

HEAD, WORKER = "172.31.8.1", "172.31.8.2"
SMALL = (
    *("--epochs", "1", "--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "8"),
    *("--model.widths", "4", "8", "--model.deep-supervision", "0", "--validation.overlap", "0"),
)


@pytest.fixture
def file(world: Any) -> Path:
    """local.yaml with what its comments tell the user to change, and machines with less memory."""
    cluster = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
    cluster["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    cluster["auth"] = {"ssh_user": "ubuntu", "ssh_private_key": str(world.key)}
    network = "192.0.2.0/24"
    assert network in cluster["setup_commands"][1]
    cluster["setup_commands"][1] = cluster["setup_commands"][1].replace(network, "172.31.0.0/20")
    cluster["setup_commands"].insert(1, "printf 'export %s\\n' BRATS_PRESET=demo OMP_NUM_THREADS=1 >> ~/brats.env")
    for part in ("head_start_ray_commands", "worker_start_ray_commands"):
        cluster[part] = [text.replace("memory=1000000000", "memory=120000000") for text in cluster[part]]
    path: Path = world.folder / "local.yaml"
    path.write_text(yaml.safe_dump(cluster, sort_keys=False))
    return path


def test_machines_of_ones_own_train_together(world: Any, file: Path) -> None:
    machines = [world.hypervisor.add_machine(f"machine-{address}", address) for address in (HEAD, WORKER)]
    try:
        world.wait_for("sshd", lambda: all("listening" in (m.folder / "log").read_text() for m in machines), seconds=30)
        done = world.ray("up", "--yes", str(file))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        with world.tunnel(file):
            done = world.ray("job", "submit", "--", "python", "ray_jobs/train.py", "--name", "own", *SMALL)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        summary = json.loads((world.folder / "hosts" / "shared" / "runs" / "own" / "summary.json").read_text())
        assert summary["store"] == "/mnt/shared/brats.zarr"
        done = world.ray("down", "--yes", str(file))
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    finally:
        for machine in machines:
            world.hypervisor.remove_machine(f"machine-{machine.address}")
