"""The drill's AWS account: moto on the VPC's gateway, what `account.py create` makes in it, a store in its bucket."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import yaml
from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.instances import InstanceResponse
from moto.server import ThreadedMotoServer
from moto.ssm.models import Parameter, ssm_backends

from ray_jobs.on_ray.conversion import convert_cohort
from tests.system.cluster_drill.hosts import GATEWAY, ROOT, Hypervisor, list_processes, make_network, network_of
from tests.system.cluster_drill.overlay import ENDPOINT, overlay

BUCKET = "brats-drill"
IMAGE_PARAMETER = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
PORT = 8265
API = f"http://127.0.0.1:{PORT}"
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def publish_image(ec2: Any) -> str:
    """Put the Deep Learning AMI where AWS publishes it (moto lets nobody write below /aws); return its id."""
    image: str = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    backend = ssm_backends[DEFAULT_ACCOUNT_ID]["us-west-2"]
    parameter = Parameter(
        account_id=DEFAULT_ACCOUNT_ID, name=IMAGE_PARAMETER, value=image, parameter_type="String",
        description="", allowed_pattern=None, keyid=None, last_modified_date=time.time(), version=1, data_type="text",
    )  # fmt: skip
    backend._parameters[IMAGE_PARAMETER].append(parameter)
    return image


def status_of(url: str, **headers: str) -> int:
    """The HTTP status of a GET; 0 where nothing answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def end_connections() -> None:
    """End what ssh keeps of this machine's connections for the commands that may follow, and with it their ports."""
    own = network_of(Path("/proc/self"))
    for process, network, command in list_processes():
        if network == own and command.startswith(b"ssh: "):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)


def is_free() -> bool:
    """Whether nothing listens where the API is reached."""
    with socket.socket() as there:
        return there.connect_ex(("127.0.0.1", PORT)) != 0


class SpotMarket:
    """How many spot instances each zone still gives: as many as are asked for, where nothing else is said.

    Of those that are asked for EC2 gives what it has, or an error where that is nothing; moto always gives the least,
    and a profile to the first of them alone.
    """

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        ask, run = InstanceResponse._get_param, InstanceResponse.run_instances

        def limited(response: InstanceResponse, name: str, if_none: Any = None) -> Any:
            if name != "MinCount":
                return ask(response, name, if_none)
            most, zone = int(ask(response, "MaxCount")), ask(response, "Placement.AvailabilityZone")
            if zone not in self.left or not ask(response, "InstanceMarketOptions.MarketType"):
                return most
            given = min(most, self.left[zone])
            self.left[zone] -= given
            if not given:
                raise EC2ClientError("InsufficientInstanceCapacity", f"There is no Spot capacity in {zone}.")
            return given

        def run_all_alike(response: InstanceResponse) -> Any:
            answer, cloud = run(response), response.ec2_backend
            profile = [ask(response, f"IamInstanceProfile.{kind}") for kind in ("Name", "Arn")]
            for instance in next(reversed(cloud.reservations.values())).instances[1:] if any(profile) else ():
                cloud.associate_iam_instance_profile(instance.id, *profile)
            return answer

        InstanceResponse._get_param, InstanceResponse.run_instances = limited, run_all_alike


class World:
    """A user's machine at the gateway, with an account that `create` has been run on."""

    def __init__(self, folder: Path, scans: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        # The user's own machine: nothing of this one's environment that steers Ray, AWS or the project.
        steering = ("AWS_", "BRATS_", "RAY_")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(steering)} | {
            "HOME": str(self.home),
            "AWS_ENDPOINT_URL": ENDPOINT,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "RAY_AUTH_MODE": "token",
            "RAY_API_SERVER_ADDRESS": API,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "160",
        }
        self.hypervisor: Hypervisor | None = None
        os.environ.update({name: value for name, value in self.environment.items() if name.startswith("AWS_")})
        make_network()
        self.market = SpotMarket()
        self.moto = ThreadedMotoServer(ip_address=GATEWAY, port=5500, verbose=False)
        self.moto.start()
        self.ec2 = boto3.client("ec2", region_name="us-west-2")
        self.s3 = boto3.client("s3", region_name="us-west-2")
        self.image = publish_image(self.ec2)
        self.file = folder / "aws.yaml"
        self.file.write_text((ROOT / "cluster" / "aws.yaml").read_text())
        alarm = ("--alarm-to", "somebody@example.org")
        done = self.account("create", "--bucket", BUCKET, "--ssh-from", f"{GATEWAY}/32", *alarm)
        assert done.returncode == 0, done.stderr
        self.file.write_text(yaml.safe_dump(overlay(self.file, self.home), sort_keys=False))
        key = self.home / ".ssh" / "brats-ray.pem"
        self.key = Path(shutil.copy(key, folder / "key"))  # account.py removes its own
        public = subprocess.run(["ssh-keygen", "-y", "-f", key], check=True, capture_output=True, text=True).stdout
        self.token = (self.home / ".ray" / "auth_token").read_text().strip()
        convert_cohort(scans, f"s3://{BUCKET}/brats.zarr")
        shared = folder / "hosts" / "shared"
        convert_cohort(scans, str(shared / "brats.zarr"))
        subprocess.run(["chown", "--recursive", "1000:1000", shared], check=True)
        self.hypervisor = Hypervisor(folder / "hosts", public)

    def account(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`python cluster/account.py …`, as the user types it."""
        return self.run(sys.executable, "cluster/account.py", *arguments, "--file", str(self.file))

    def wait_for(self, what: str, ready: Callable[[], Any], *, seconds: float, every: float = 1.0) -> Any:
        """Return the first true answer of `ready`; raise after `seconds`, or at once when a host falls over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.hypervisor is not None:
                self.hypervisor.check()
            found = ready()
            if found:
                return found
            time.sleep(every)
        raise AssertionError(f"{what}: not within {seconds:g} s")

    def run(self, *command: str, seconds: float = 600, **variables: str) -> "subprocess.CompletedProcess[str]":
        """The user's command, to its end; raises after `seconds`, or at once when a host falls over."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment | variables, stdout=out, stderr=err, stdin=subprocess.DEVNULL
            )
            try:
                self.wait_for(" ".join(command), lambda: process.poll() is not None, seconds=seconds, every=0.1)
            except BaseException:
                process.kill()
                process.wait()
                raise
            texts = [(file.seek(0), file.read())[1] for file in (out, err)]
        return subprocess.CompletedProcess(command, process.returncode, *texts)

    def ray(self, *arguments: str, seconds: float = 600, **variables: str) -> "subprocess.CompletedProcess[str]":
        return self.run(*RAY, *arguments, seconds=seconds, **variables)

    def begin(self, name: str, *command: str) -> "Command":
        return Command(command, self.environment, self.folder / f"{name}.log")

    @contextlib.contextmanager
    def tunnel(self, file: Path) -> Iterator[None]:
        """`ray dashboard`, for as long as jobs are submitted."""
        command = self.begin("dashboard", *RAY, "dashboard", str(file))
        self.wait_for("the tunnel", lambda: status_of(API) == 200, seconds=90)
        try:
            yield
        finally:
            command.stop()
            end_connections()  # its host may live on, and another's tunnel may come
            self.wait_for("the tunnel's end", is_free, seconds=60)

    def instances(self, kind: str, *states: str) -> list[str]:
        """Ids of the head (`head`) or of the workers (`worker`) that run, or are in one of `states`."""
        tag = {"Name": "tag:ray-node-type", "Values": [kind]}
        state = {"Name": "instance-state-name", "Values": [*states] or ["pending", "running"]}
        found = self.ec2.describe_instances(Filters=[tag, state])["Reservations"]
        return sorted(item["InstanceId"] for group in found for item in group["Instances"])

    def zones(self, instances: list[str]) -> list[str]:
        """The zone of each."""
        found = self.ec2.describe_instances(InstanceIds=instances)["Reservations"]
        return [item["Placement"]["AvailabilityZone"] for group in found for item in group["Instances"]]

    def host(self, instance: str) -> Any:
        return self.wait_for("the host", lambda: self.hypervisor.hosts.get(instance), seconds=20)

    def read_json(self, key: str) -> Any:
        return json.loads(self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def stop(self) -> None:
        self.hypervisor.stop()
        self.moto.stop()


@dataclass
class Lost:
    """What a lost head takes with it: the command whose job ran there, its host and its workers'."""

    command: "Command | None" = None
    hosts: list[Any] = field(default_factory=list)


class Command:
    """A command in the background whose output goes to a file."""

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self.log = log
        # Nothing to read from, as the README's `ray dashboard … < /dev/null &` has: ssh would want the terminal.
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

    def says(self, text: str, *, times: int = 1) -> bool:
        """Whether it has, so often, however its lines are broken; raises when the command ended without."""
        found = " ".join(self.log.read_text(errors="replace").split()).count(text) >= times
        if not found and self.process.poll() is not None:
            raise AssertionError(f"ended with {self.process.returncode}: {self.log.read_text()[-3000:]}")
        return found

    def job(self) -> str:
        """The id of the job that it submitted."""
        return self.log.read_text().partition("Job '")[2].partition("'")[0]

    def stop(self) -> None:
        """End it and what it has started, as ssh."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)
