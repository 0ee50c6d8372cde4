"""Hosts that stand in for EC2 instances: network namespaces with an sshd and a metadata service, started and ended as
moto's instances are."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SSHD = ROOT / ".drill" / "sshd" / "usr" / "sbin" / "sshd"
PROMETHEUS = ROOT / ".prometheus" / "usr" / "bin" / "prometheus"
BRIDGE, GATEWAY = "drill0", "172.31.15.254"
PYTHON = Path(sys.executable).resolve()
# What a host sees of this machine, wherever that lies: its own /tmp and home folders would cover it.
SEEN = (Path(sys.base_prefix), Path(sys.prefix), ROOT / ".drill")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def make_network() -> None:
    """The VPC, its zones' subnets together, as a bridge, with this process at its gateway."""
    ip("link", "set", "lo", "up")
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("address", "add", f"{GATEWAY}/16", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def list_processes() -> Iterator[tuple[int, str, bytes]]:
    """Each process that runs on any host or here: its number, the network namespace it is in, its command line."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield int(process.name), network_of(process), (process / "cmdline").read_bytes()


def network_of(process: Path) -> str:
    """What processes of one host are known by, for a folder of /proc."""
    return str((process / "ns" / "net").readlink())


class Host:
    """One instance's host, booting."""

    def __init__(
        self,
        instance: dict[str, Any],
        folder: Path,
        public_key: str,
        *,
        sshd: Path = SSHD,
        seen: tuple[Path, ...] = SEEN,
        programs: dict[str, str] | None = None,
    ) -> None:
        self.instance, self.folder, self.address = instance, folder, instance["PrivateIpAddress"]
        (folder / "etc").mkdir(parents=True)
        profile = instance["IamInstanceProfile"]["Arn"].rsplit("/", 1)[-1]
        zone = instance.get("Placement", {}).get("AvailabilityZone", "us-west-2a")
        about = {"id": instance["InstanceId"], "region": "us-west-2", "zone": zone, "role": profile}
        (folder / "instance.json").write_text(json.dumps(about))
        shutil.copy(HERE / "metadata_server.py", folder)
        self._unplugged = False
        self._write_etc(public_key)
        self._write_home()
        for name, text in (programs or {}).items():  # ~/.profile puts ~/bin first
            (folder / "home" / "bin").mkdir(exist_ok=True)
            write_program(folder / "home" / "bin" / name, text)
        if instance["InstanceType"].startswith("g4dn"):
            (folder / "nvme").touch()
        namespaces = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        boot = ["bash", str(HERE / "boot.sh"), str(folder), self.address, str(PYTHON), str(sshd), *map(str, seen)]
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(
                ["unshare", *namespaces, *boot], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self._plug_in()

    def _write_etc(self, public_key: str) -> None:
        etc = self.folder / "etc"
        users = ("root:*:0:0::/root:/bin/bash", "sshd:*:101:65534::/run/sshd:/usr/sbin/nologin")
        (etc / "passwd").write_text("\n".join((*users, "ubuntu:*:1000:1000::/home/ubuntu:/bin/bash", "")))
        (etc / "group").write_text("root:x:0:\nubuntu:x:1000:\nnogroup:x:65534:\n")
        name = "ip-" + self.address.replace(".", "-")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {name}\n")
        (etc / "authorized_keys").write_text(public_key)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", etc / "host_key"], check=True)
        lines = ("Port 22", f"HostKey {etc / 'host_key'}", f"AuthorizedKeysFile {etc / 'authorized_keys'}")
        lines += ("PasswordAuthentication no", "UsePAM no", "StrictModes no", "PidFile none", "PermitRootLogin no", "")
        (etc / "sshd_config").write_text("\n".join(lines))

    def _write_home(self) -> None:
        """A home folder as a baked image has it: the environment is there, with the mark of what it was built from.

        Its libraries are those of the environment that runs the drill; the project is the copy that comes by rsync.
        """
        home = self.folder / "home"
        libraries = home / "venv" / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        libraries.mkdir(parents=True)
        (home / "venv" / "bin").mkdir()
        shutil.copytree("/etc/skel", home, dirs_exist_ok=True)
        (home / "venv" / "pyvenv.cfg").write_text(f"home = {PYTHON.parent}\ninclude-system-site-packages = false\n")
        (libraries / "drill.pth").write_text(f"/home/ubuntu/brats-stream\n{sysconfig.get_path('purelib')}\n")
        for name in ("python", "python3"):
            (home / "venv" / "bin" / name).symlink_to(PYTHON)
        ray = home / "venv" / "bin" / "ray"
        ray.write_text(
            "#!/home/ubuntu/venv/bin/python\nimport sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n"
        )
        ray.chmod(0o755)
        (home / "venv" / "bin" / "activate").write_text("export VIRTUAL_ENV=~/venv PATH=~/venv/bin:$PATH\n")
        # Who shuts the machine down: Hypervisor.
        for name, text in (("sudo", 'shift; exec "$@"'), ("shutdown", 'echo "$*" >> ~/shutdown.log')):
            write_program(home / "venv" / "bin" / name, text)
        sources = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
        (home / "venv" / ".built").write_text(hashlib.sha256(sources).hexdigest() + "\n")
        if PROMETHEUS.exists():
            place = home / "monitoring" / "prometheus" / "usr" / "bin"
            place.mkdir(parents=True)
            shutil.copy(PROMETHEUS, place)

    def _plug_in(self) -> None:
        own = network_of(Path("/proc/self"))
        for _ in range(200):
            if self.network() != own:
                break
            time.sleep(0.02)
        cable = "v" + self.address.replace(".", "")[-12:]
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._process.pid))
        ip("link", "set", cable, "master", BRIDGE, "up")

    def check(self) -> None:
        """Raise RuntimeError, with the host's log, where it ended by itself: it did not boot, or its sshd fell over."""
        status = self._process.poll()
        if status is not None and not self._unplugged:
            raise RuntimeError(
                f"the host {self.address} ended with {status}: {(self.folder / 'log').read_text()[-3000:]}"
            )

    def process(self) -> int:
        """The process, as this machine counts them, that the host's namespaces belong to."""
        return self._process.pid

    def network(self) -> str:
        """What its processes are known by: the network namespace they are in."""
        return network_of(Path("/proc") / str(self._process.pid))

    def kill_ray(self) -> None:
        """Kill every process of Ray's and of its jobs at once, the way the kernel does when memory is short."""
        own = self.network()
        for process, network, command in list_processes():
            if network == own and b"ray" in command:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def is_shut_down(self) -> bool:
        """Whether somebody on it said `shutdown -h now`."""
        said = self.folder / "home" / "shutdown.log"
        return said.exists() and "-h now" in said.read_text().splitlines()

    def give_notice(self, text: str) -> None:
        """Let the metadata service say that the instance will be taken away."""
        (self.folder / "notice.json").write_text(text)

    def pull_the_plug(self) -> None:
        """Every process is gone at once, and so are its addresses."""
        self._unplugged = True
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Hypervisor:
    """Boots a host for every instance that runs in moto, and ends those of terminated ones."""

    def __init__(self, folder: Path, public_key: str) -> None:
        self.hosts: dict[str, Host] = {}
        self._folder, self._key = folder, public_key
        self._stop = threading.Event()
        self.programs: dict[str, str] = {}  # that hosts get which boot from now on, by name
        self.trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add_machine(self, name: str, address: str, **differences: Any) -> Host:
        """A machine that somebody owns, which no account knows of."""
        about = {"InstanceId": name, "PrivateIpAddress": address, "InstanceType": "own"}
        about |= {"IamInstanceProfile": {"Arn": "none/none"}}
        self.hosts[name] = Host(about, self._folder / name, self._key, **differences)
        return self.hosts[name]

    def remove_machine(self, name: str) -> None:
        """End it and forget it."""
        self.hosts.pop(name).pull_the_plug()

    def check(self) -> None:
        """Raise what went wrong with any host, or with booting them."""
        if self.trouble is not None:
            raise self.trouble
        for host in list(self.hosts.values()):
            host.check()

    def _run(self) -> None:
        ec2 = boto3.client("ec2", region_name="us-west-2")
        try:
            while not self._stop.is_set():
                self._follow(ec2)
                self._stop.wait(0.5)
        except BaseException as error:
            self.trouble = error
            raise

    def _follow(self, ec2: Any) -> None:
        for name, host in self.hosts.items():
            if name.startswith("i-") and host.is_shut_down():
                asked = ec2.describe_instance_attribute(InstanceId=name, Attribute="instanceInitiatedShutdownBehavior")
                terminate = asked["InstanceInitiatedShutdownBehavior"]["Value"] == "terminate"
                (ec2.terminate_instances if terminate else ec2.stop_instances)(InstanceIds=[name])
        found = [item for group in ec2.describe_instances()["Reservations"] for item in group["Instances"]]
        # An instance gets its profile a moment after it is there.
        alive = {
            item["InstanceId"]: item
            for item in found
            if item["State"]["Name"] in ("pending", "running") and "IamInstanceProfile" in item
        }
        for name in {name for name in self.hosts if name.startswith("i-")} - alive.keys():
            self.hosts.pop(name).pull_the_plug()
        for name in alive.keys() - self.hosts.keys():
            self.hosts[name] = Host(alive[name], self._folder / name, self._key, programs=self.programs)

    def stop(self) -> None:
        """End what still runs."""
        self._stop.set()
        self._thread.join()
        for host in self.hosts.values():
            host.pull_the_plug()
