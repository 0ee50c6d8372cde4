"""The drill's own hosts: they see the project wherever it lies, and one that does not boot ends the drill."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.cluster_drill.hosts import SEEN, SSHD

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ODD, BROKEN = ("machine-odd", "172.31.8.9"), ("machine-broken", "172.31.8.8")


def test_a_project_below_tmp_is_seen_by_hosts_with_a_tmp_of_their_own(world: Any, tmp_path: Path) -> None:
    sshd = tmp_path / "sshd"
    shutil.copytree(SSHD.parents[2], sshd)
    (tmp_path / "not-seen").touch()
    host = world.hypervisor.add_machine(*ODD, sshd=sshd / SSHD.relative_to(SSHD.parents[2]), seen=(*SEEN, sshd))
    try:
        world.wait_for("sshd", lambda: "listening" in (host.folder / "log").read_text(), seconds=60)
        look = ["nsenter", f"--target={host.process()}", "--mount", "ls", tmp_path]
        done = subprocess.run(look, check=True, capture_output=True, text=True)
        assert done.stdout.split() == ["sshd"]
    finally:
        world.hypervisor.remove_machine(ODD[0])


def test_a_host_that_does_not_boot_ends_the_drill_with_its_log(world: Any) -> None:
    world.hypervisor.add_machine(*BROKEN, sshd=Path("/nowhere/sshd"))
    try:
        with pytest.raises(RuntimeError, match=r"172\.31\.8\.8 ended with 12\d: .*/nowhere/sshd: No such file"):
            world.run("sleep", "infinity")
    finally:
        world.hypervisor.remove_machine(BROKEN[0])
