"""`ray up` to `ray down` offline, as the README tells it: run by `make drill-cluster`, in namespaces of its own.

Network namespaces with sshd stand in for EC2's hosts and moto for EC2, S3, IAM and SSM; Ray, aws.yaml, the node
scripts, account.py and training are the real ones. The tests are one story and run in order.
"""

import contextlib
import datetime
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import open_store
from tests.system.cluster_drill.hosts import PROMETHEUS, list_processes
from tests.system.cluster_drill.world import API, RAY, Lost, status_of

# By the same limit these files come in the order of their names (tests/conftest.py): they are one story.
pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

SMALL = (
    *("--epochs", "1", "--sampling.patch-shape", "16", "16", "16", "--sampling.patches-per-epoch", "8"),
    *("--model.widths", "4", "8", "--model.deep-supervision", "0", "--validation.overlap", "0"),
)


@pytest.fixture(scope="module")
def tunnel(world: Any) -> Iterator[None]:
    with world.tunnel(world.file):
        yield


def test_ray_up_works_the_first_time(world: Any) -> None:
    done = world.ray("up", "--yes", str(world.file))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (head,) = world.instances("head")
    assert world.instances("worker") == []
    node = world.ec2.describe_instances(InstanceIds=[head])["Reservations"][0]["Instances"][0]
    assert node["ImageId"] == world.image
    assert node["IamInstanceProfile"]["Arn"].endswith("/brats-ray-head")
    group = world.ec2.describe_security_groups(GroupIds=[node["SecurityGroups"][0]["GroupId"]])["SecurityGroups"][0]
    opened = [place["CidrIp"] for rule in group["IpPermissions"] for place in rule["IpRanges"]]
    assert opened == ["172.31.15.254/32"]
    token = world.host(head).folder / "home" / ".ray" / "auth_token"
    assert oct(token.stat().st_mode)[-3:] == "600"


@pytest.mark.usefixtures("tunnel")
def test_nobody_comes_in_without_the_token(world: Any) -> None:
    (head,) = world.instances("head")
    assert status_of(f"http://{world.host(head).address}:8265/api/jobs/") == 0  # but for the tunnel
    assert status_of(f"{API}/api/jobs/") == 401
    assert status_of(f"{API}/api/jobs/", Authorization=f"Bearer {'0' * 64}") in (401, 403)
    assert status_of(f"{API}/api/jobs/", Authorization=f"Bearer {world.token}") == 200
    refused = world.ray("job", "submit", "--", "id", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode != 0
    assert "uid=" not in refused.stdout


@pytest.mark.usefixtures("tunnel")
def test_a_set_up_that_keeps_failing_ends_the_job_with_the_reason(world: Any) -> None:
    assert world.instances("worker") == []
    world.hypervisor.programs["nvidia-smi"] = "echo 570.1"
    done = world.ray("job", "submit", "--", "python", "ray_jobs/train.py", "--name", "never", *SMALL)
    world.hypervisor.programs.clear()
    assert done.returncode != 0
    assert "error: the set-up of a worker failed 3 times on i-" in done.stdout, done.stdout[-3000:]
    assert "wanted NVIDIA driver 580 or newer for CUDA 13, found 570.1" in done.stdout
    world.wait_for("no workers", lambda: not world.instances("worker"), seconds=240)
    assert len(world.instances("worker", "terminated")) == 2  # none was booted for a job that had ended


@pytest.mark.usefixtures("tunnel")
def test_training_without_arguments_finds_its_place_and_survives_lost_workers(world: Any) -> None:
    """`ray job submit -- python ray_jobs/train.py` trains on two spot workers that the autoscaler starts for it."""
    world.market.left["us-west-2a"] = 1
    job = world.begin("train", *RAY, "job", "submit", "--", "python", "ray_jobs/train.py")
    try:
        check_that_the_gang_moves(world, job)
        workers = world.instances("worker")
        for item in world.ec2.describe_instances(InstanceIds=workers)["Reservations"]:
            assert item["Instances"][0]["InstanceLifecycle"] == "spot"
            assert item["Instances"][0]["InstanceType"] == "g4dn.xlarge"
        world.wait_for("training", lambda: job.says("epoch 1"), seconds=400)
        check_that_no_secret_shows(world)
        assert networks_of_training() == {world.host(name).network() for name in workers}  # and so not on the head
        check_that_a_notice_costs_no_step(world, job, workers)
        check_that_a_loss_without_notice_is_made_good(world, job)
        assert set(world.zones(world.instances("worker"))) == {"us-west-2b"}
        check_that_a_stop_saves(world, job)
    finally:
        world.market.left.clear()
        job.stop()


def check_that_the_gang_moves(world: Any, job: Any) -> None:
    """The zone that comes first has one of two: both go to the next, and the one is given back."""
    moved = (
        "notice: spot g4dn.xlarge in us-west-2a gives 1 of 2 workers (InsufficientInstanceCapacity): "
        "all go to spot g4dn.xlarge in us-west-2b"
    )
    world.wait_for("the gang to move", lambda: job.says(moved), seconds=300)
    said = world.ray("exec", str(world.file), "ray status").stdout
    assert "spot_xlarge_a: LaunchFailed" in said, said
    assert "spot_xlarge_b" in said.partition("From request_resources")[2], said
    world.wait_for(
        "two workers in one zone, and none elsewhere",
        lambda: (there := world.instances("worker")) and world.zones(there) == ["us-west-2b"] * 2,
        seconds=300,
    )


def check_that_a_notice_costs_no_step(world: Any, job: Any, workers: list[str]) -> None:
    """With a notice the run saves in mid-epoch, and goes on from there when another worker is there."""
    assert not [key for key in world.keys("runs/") if "/checkpoint_" in key]
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=60)
    lost = world.host(workers[0])
    lost.give_notice(f'{{"action": "terminate", "time": "{until:%Y-%m-%dT%H:%M:%SZ}"}}')
    world.wait_for(
        "a checkpoint in mid-epoch", lambda: "checkpoint_epoch_0000_step_" in str(world.keys("runs/")), seconds=90
    )
    world.ec2.terminate_instances(InstanceIds=[workers[0]])
    world.wait_for("another worker", lambda: set(world.instances("worker")) - set(workers), seconds=120)
    world.wait_for("the run to go on", lambda: job.says("going on from checkpoint_epoch_0000_step_"), seconds=400)
    # Ray may replace the node that drains and once more the one that ends: the third goes when it idles.
    assert len(world.instances("worker")) in (2, 3)
    assert "node drained" in (lost.folder / "home" / "spot_watcher.log").read_text()


def check_that_a_loss_without_notice_is_made_good(world: Any, job: Any) -> None:
    world.wait_for("both to train", lambda: len(networks_of_training()) == 2, seconds=120)
    busy = networks_of_training()
    lost = next(name for name in world.instances("worker") if world.host(name).network() in busy)
    world.ec2.terminate_instances(InstanceIds=[lost])
    world.wait_for("the run to go on", lambda: job.says("going on from checkpoint_", times=2), seconds=400)


def check_that_a_stop_saves(world: Any, job: Any) -> None:
    world.ray("job", "stop", job.job())
    assert job.says("the same command goes on from")


def networks_of_training() -> set[str]:
    """Where Ray Train's workers run."""
    return {network for _, network, command in list_processes() if b"RayTrainWorker" in command}


def check_that_no_secret_shows(world: Any) -> None:
    """Neither on a command line of any process nor in what Ray and ssh wrote down."""
    for process, _, command in list_processes():
        assert world.token.encode() not in command, process
    for host in list(world.hypervisor.hosts.values()):
        holders = subprocess.run(
            ["grep", "--recursive", "--files-with-matches", world.token, host.folder / "tmp", host.folder / "home"],
            capture_output=True,
            text=True,
        ).stdout.split()
        assert holders == [str(host.folder / "home" / ".ray" / "auth_token")]
    for log in world.folder.glob("*.log"):
        assert world.token not in log.read_text()


@pytest.mark.usefixtures("tunnel")
def test_a_folder_of_one_node_is_refused(world: Any) -> None:
    check_that_a_folder_of_the_head_is_refused(world)


@pytest.mark.usefixtures("tunnel")
def test_a_search_from_the_users_folder_runs_its_trials_on_the_workers(world: Any) -> None:
    search = ("python", "ray_jobs/tune.py", "--name", "search", "--trials", "2", *SMALL)
    done = world.ray("job", "submit", "--working-dir", ".", "--", *search)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    trials = world.read_json("runs/search/results.json")["trials"]
    assert [trial["status"] for trial in trials] == ["finished", "finished"]


def test_prometheus_follows_the_cluster_on_loopback(world: Any) -> None:
    if not PROMETHEUS.exists():
        pytest.skip("no Prometheus could be fetched")
    (head,) = world.instances("head")
    assert status_of(f"http://{world.host(head).address}:9090/-/ready") == 0
    ask = "curl --silent --get http://127.0.0.1:9090/api/v1/query --data-urlencode query=ray_node_cpu_count"
    done = world.ray("exec", str(world.file), ask)
    assert '"status":"success","data":{"resultType":"vector","result":[{' in done.stdout, done.stdout


def test_idle_workers_are_terminated(world: Any) -> None:
    def at_rest() -> bool:
        """None there, and none on its way: the autoscaler may launch one for a trial that is over by then."""
        if world.instances("worker"):
            return False
        said = world.ray("exec", str(world.file), "ray status").stdout
        return "(no pending nodes)" in said and "(no resource demands)" in said and not world.instances("worker")

    (head,) = world.instances("head")
    with idle_minutes(world.host(head).folder / "home" / "ray_bootstrap_config.yaml", 0.1):
        world.wait_for("no workers", at_rest, seconds=240)
    assert len(world.instances("head")) == 1


@contextlib.contextmanager
def idle_minutes(file: Path, minutes: float) -> Iterator[None]:
    """Meanwhile another figure in the head's copy of aws.yaml, which the autoscaler reads whenever it looks."""
    whole, before = file.stat(), file.read_text()

    def write(text: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(text)
        os.chown(new, whole.st_uid, whole.st_gid)
        new.chmod(whole.st_mode & 0o777)
        new.replace(file)

    write(json.dumps(json.loads(before) | {"idle_timeout_minutes": minutes}))
    try:
        yield
    finally:
        write(before)


def test_scans_are_converted_on_the_head(world: Any, phantom_source: Path) -> None:
    """In a shell there, with the head's own CPUs: the cluster's start no GPU instance for it."""
    (head,) = world.instances("head")
    scans = world.host(head).folder / "home" / "scans"
    shutil.copytree(phantom_source, scans)
    subprocess.run(["chown", "--recursive", "1000:1000", scans], check=True)
    convert = "python ray_jobs/convert.py --source ~/scans --store ${BRATS_STORE%/*}/again.zarr"
    done = world.ray("exec", str(world.file), f"cd ~/brats-stream && {convert}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert open_store("s3://brats-drill/again.zarr").digest == open_store("s3://brats-drill/brats.zarr").digest
    assert world.instances("worker") == []


@pytest.mark.usefixtures("tunnel")
def test_a_folder_of_the_head_is_refused_by_workers_that_come_for_the_run(world: Any) -> None:
    assert world.instances("worker") == []
    check_that_a_folder_of_the_head_is_refused(world)


def check_that_a_folder_of_the_head_is_refused(world: Any) -> None:
    done = world.ray("job", "submit", "--", "python", "ray_jobs/train.py", "--runs", "/home/ubuntu/runs", *SMALL)
    assert done.returncode != 0
    assert "cannot see; give an s3:// URL" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.usefixtures("tunnel")
def test_a_head_is_lost(world: Any, lost: Lost) -> None:
    """What follows is told in test_next_head.py, after scenes that need none of this cluster."""
    arguments = ("python", "ray_jobs/train.py", "--name", "lost", "--checkpoints.every-steps", "5")
    lost.command = world.begin("lost", *RAY, "job", "submit", "--", *arguments)
    world.wait_for("a checkpoint", lambda: "record.json" in str(world.keys("runs/lost/checkpoint_")), seconds=400)
    # Those of scenes before are idle.
    world.wait_for("two workers", lambda: len(world.instances("worker")) == 2, seconds=400)
    (head,), workers = world.instances("head"), world.instances("worker")
    lost.hosts += [world.host(name) for name in (head, *workers)]
    with (lost.hosts[0].folder / "home" / "brats.env").open("a") as environment:
        environment.write("export BRATS_HEAD_IDLE_MINUTES=1\n")
    lost.hosts[0].kill_ray()
