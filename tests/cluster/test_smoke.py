"""`account.py doctor --smoke`: what is rented, what it is told, what is shown of it, and that it ends in any case."""

import base64
import importlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient

from storage import InputError
from tests.cluster.conftest import CLUSTER, CREATE, REGION

Account = Callable[..., int]
ROOT = CLUSTER.parent


class Machine:
    """What the rented machine says, a line at each look; `asked` is how it was started."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.asked: dict[str, Any] = {}
        self.clock = 0.0

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        if self.lines:
            s3, place = boto3.client("s3", region_name=REGION), {"Bucket": "somebodys-brats", "Key": "smoke/said"}
            found = s3.list_objects_v2(Bucket="somebodys-brats", Prefix="smoke/said")["KeyCount"]
            before = s3.get_object(**place)["Body"].read() if found else b""
            s3.put_object(**place, Body=before + f"{self.lines.pop(0)}\n".encode())


@pytest.fixture
def machine(account: Account, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """An account that is ready, and no doctor who asks all of it again."""
    account(*CREATE)
    made, smoke = Machine(), importlib.import_module("smoke")
    monkeypatch.setattr(importlib.import_module("account"), "examine", lambda _account: 0)
    monkeypatch.setattr(smoke, "zone_prices", lambda _ec2, _kind: {"us-west-2a": 0.24})
    monkeypatch.setattr(smoke.time, "sleep", made.sleep)
    monkeypatch.setattr(smoke.time, "monotonic", lambda: made.clock)
    ask = BaseClient._make_api_call

    def note(client: Any, operation: str, asked: dict[str, Any]) -> Any:
        if operation == "RunInstances":
            made.asked = dict(asked)
        return ask(client, operation, asked)

    monkeypatch.setattr(BaseClient, "_make_api_call", note)
    return made


def states() -> list[str]:
    found = boto3.client("ec2", region_name=REGION).describe_instances()["Reservations"]
    return [item["State"]["Name"] for group in found for item in group["Instances"]]


@pytest.mark.parametrize(("driver", "status"), [("yes  driver: 595", 0), ("NO   driver: none", 1)])
def test_one_machine_is_rented_told_of_and_ended(
    account: Account, machine: Machine, capsys: pytest.CaptureFixture[str], driver: str, status: int
) -> None:
    machine.lines = [driver, "yes  NCCL alone: (2, 29)", "done"]
    assert account("doctor", "--smoke") == status
    assert states() == ["terminated"]
    said = capsys.readouterr().out
    assert driver in said
    assert "ended after 0 minutes, about $0.00" in said  # 30 s of the test's own clock
    asked = machine.asked
    assert (asked["InstanceType"], asked["MinCount"], asked["MaxCount"]) == ("g4dn.xlarge", 1, 1)
    assert asked["InstanceMarketOptions"]["MarketType"] == "spot"
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert asked["IamInstanceProfile"] == {"Name": "brats-ray-worker"}
    assert asked["Placement"] == {"AvailabilityZone": "us-west-2a"}
    packed = boto3.client("s3", region_name=REGION).get_object(Bucket="somebodys-brats", Key="smoke/project.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(packed["Body"].read())) as archive:
        names = set(archive.getnames())
    assert {"pyproject.toml", "constraints.txt", "cluster/node/smoke.sh", "benchmarks/gpu_check.py"} <= names
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.processes
def test_it_ends_itself_whatever_becomes_of_this_command(account: Account, machine: Machine, tmp_path: Path) -> None:
    """The clock of its end is set before anything else, and its last word is to end."""
    machine.lines = ["done"]
    account("doctor", "--smoke")
    text = machine.asked["UserData"]
    boot = text if text.startswith("#!") else base64.b64decode(text).decode()
    lines = boot.strip().splitlines()
    assert (lines[1], lines[-1]) == ("shutdown -h +25", "shutdown -h now")
    assert subprocess.run(["bash", "-n"], input=boot, text=True).returncode == 0
    assert "smoke.sh s3://somebodys-brats/smoke" in boot


def test_a_machine_that_says_nothing_is_ended_too(account: Account, machine: Machine) -> None:
    with pytest.raises(InputError, match=r"said nothing more for 25 minutes, last: nothing at all"):
        account("doctor", "--smoke")
    assert states() == ["terminated"]


@pytest.mark.processes
@pytest.mark.parametrize("works", [True, False])
def test_what_the_machine_says(tmp_path: Path, works: bool) -> None:  # noqa: FBT001
    """smoke.sh with stand-ins for the GPU, the environment and the bucket."""
    project, programs = tmp_path / "project", tmp_path / "bin"
    (project / "cluster" / "node").mkdir(parents=True)
    programs.mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    script = project / "cluster" / "node" / "smoke.sh"
    script.write_text((CLUSTER / "node" / "smoke.sh").read_text())
    (script.parent / "setup.sh").write_text("echo built\n")
    end = "exit 0" if works else "echo no such luck >&2; exit 1"
    texts = {
        programs / "nvidia-smi": "echo Tesla T4, 7.5, 595.71",
        programs / "aws": f'[ "${{4##*.}}" = json ] || cp "$4" {tmp_path}/"${{5##*/}}"-came',
        tmp_path / "venv" / "bin" / "python": f'echo "$@" >> {tmp_path}/calls; {end}',
    }
    for path, text in texts.items():
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["bash", script, "s3://b/smoke", "s3://b/brats.zarr"], env=environment, check=True)
    gpu, built, nccl, steps, last = (tmp_path / "said-came").read_text().splitlines()
    assert gpu == "yes  GPU, capability, driver: Tesla T4, 7.5, 595.71"
    assert built == "yes  environment: built"
    assert nccl.startswith("yes  NCCL alone" if works else "NO   NCCL alone: no such luck")
    assert steps.startswith("yes" if works else "NO")
    assert last == "done"
    assert "-m benchmarks gpu-check --minutes 5 --store s3://b/brats.zarr" in (tmp_path / "calls").read_text()
