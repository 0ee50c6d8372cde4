"""After test_aws_drill.py lost its head: nothing goes on billing, another goes on, `ray down` leaves nothing."""

import subprocess
from typing import Any

import pytest

from tests.system.cluster_drill.world import RAY, Lost

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]  # as test_aws_drill.py: it orders them


def test_where_the_head_is_lost_nothing_goes_on_billing(world: Any, lost: Lost) -> None:
    world.wait_for("no workers", lambda: not world.instances("worker"), seconds=300)
    world.wait_for("no head", lambda: not world.instances("head"), seconds=120)
    assert len(lost.hosts) == 3
    assert all(host.is_shut_down() for host in lost.hosts)


def test_another_head_goes_on_with_what_was_running(world: Any, lost: Lost) -> None:
    done = world.ray("up", "--yes", str(world.file))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert len(world.instances("head")) == 1
    assert lost.command is not None
    name = lost.command.job()
    assert f"submitted again: {name}: python ray_jobs/train.py --name lost" in done.stdout, done.stdout[-3000:]
    with world.tunnel(world.file):
        job = world.begin("again", *RAY, "job", "logs", "--follow", name)
        try:
            world.wait_for("the run to go on", lambda: job.says("going on from checkpoint_"), seconds=400)
            world.ray("job", "stop", name)
            world.wait_for("nothing left to go on", lambda: not world.keys("runs/.unfinished/"), seconds=60)
        finally:
            job.stop()


def test_baking_leaves_no_secret_on_the_image_that_comes_next(world: Any) -> None:
    (head,) = world.instances("head")
    host = world.host(head)
    done = world.account("bake")
    assert done.returncode == 0, done.stdout + done.stderr
    # Programs that read keys (Prometheus) hold the words too, so those are sought in text files.
    for search in (["-rlF", world.token], ["-rlI", "PRIVATE KEY"]):
        left = subprocess.run(["grep", *search, host.folder / "home"], capture_output=True)
        assert left.stdout == b""
    (image,) = world.ec2.describe_images(Owners=["self"])["Images"]
    assert image["ImageId"] in world.file.read_text()


def test_ray_down_leaves_nothing(world: Any) -> None:
    refused = world.account("remove")
    assert refused.returncode == 2
    assert "ray down" in refused.stderr
    done = world.ray("down", "--yes", str(world.file))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert world.instances("head") == world.instances("worker") == []
    world.wait_for("all hosts to be gone", lambda: not world.hypervisor.hosts, seconds=20)
    removed = world.account("remove", "--images")
    assert removed.returncode == 0, removed.stderr
    assert not (world.home / ".ssh" / "brats-ray.pem").exists()
    left = world.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["brats-ray"]}])
    assert left["SecurityGroups"] == []
