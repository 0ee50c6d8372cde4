"""The scripts that prepare a node, run in a home folder of the test's own with stand-ins for what they call."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Script = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.processes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's home folder with the project in it and the environment built."""
    home = tmp_path / "home"
    project = home / "brats-stream"
    shutil.copytree(ROOT / "cluster", project / "cluster")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, project)
    (home / "venv" / "bin").mkdir(parents=True)
    (home / "venv" / ".built").write_text(mark(project))
    (home / ".bashrc").write_text("case $- in *i*) ;; *) return;; esac\n")
    (tmp_path / "bin").mkdir()
    return home


def mark(project: Path) -> str:
    text = (project / "pyproject.toml").read_bytes() + (project / "constraints.txt").read_bytes()
    return hashlib.sha256(text).hexdigest() + "\n"


@pytest.fixture
def script(home: Path, tmp_path: Path) -> Script:
    """Run `bash ~/brats-stream/cluster/node/<name> …` as Ray's commands do."""

    def run(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {"HOME": str(home), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        command = ["bash", str(home / "brats-stream" / "cluster" / "node" / name), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    return run


def stand_in(tmp_path: Path, name: str, text: str) -> None:
    """A command of that name, found first."""
    path = tmp_path / "bin" / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def test_a_prepared_node_is_left_as_it_is(home: Path, script: Script) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("secret")
    (home / ".ray" / "auth_token").chmod(0o644)
    (home / "brats.env").write_text("export BRATS_STORE=s3://b/s\n")
    for _ in range(2):
        done = script("setup.sh")
        assert done.returncode == 0, done.stderr
    assert (home / ".bashrc").read_text().count("brats.env") == 1
    assert (home / ".bashrc").read_text().startswith("for f in ")
    assert oct((home / ".ray" / "auth_token").stat().st_mode)[-3:] == "600"
    assert (home / "scratch" / "cache").is_dir()
    seen = subprocess.run(
        ["bash", "-c", ". ~/.bashrc; echo $BRATS_STORE"], env={"HOME": str(home)}, capture_output=True, text=True
    )
    assert seen.stdout == "s3://b/s\n"


@pytest.mark.parametrize(
    ("answer", "fits"), [("echo 580.65.06", True), ("echo 595.91.07", True), ("echo 570.1", False), ("exit 9", True)]
)
def test_an_old_driver_is_refused(tmp_path: Path, script: Script, answer: str, fits: bool) -> None:  # noqa: FBT001
    """A driver that does not answer is one on a machine without a GPU, as the head is, where there is no device."""
    stand_in(tmp_path, "nvidia-smi", answer)
    done = script("setup.sh")
    assert (done.returncode == 0) is fits, done.stderr
    assert fits == ("set-up failed" not in done.stderr)
    if not fits:
        assert done.stderr.strip().splitlines() == [
            "set-up failed: wanted NVIDIA driver 580 or newer for CUDA 13, found 570.1: take a newer image "
            "(python cluster/account.py image)"
        ]


@pytest.mark.parametrize("works", [True, False])
def test_the_environment_is_built_anew_where_the_pins_changed(
    home: Path,
    tmp_path: Path,
    script: Script,
    works: bool,  # noqa: FBT001
) -> None:
    with (home / "brats-stream" / "constraints.txt").open("a") as constraints:
        constraints.write("# newer\n")
    calls = tmp_path / "calls"
    stand_in(tmp_path, "python3.12", f'[ "$1" = -c ] || echo "$@" >> {calls}')
    pip = home / "venv" / "bin" / "python"
    pip.write_text(f'#!/bin/bash\necho "$@" >> {calls}\nexit {0 if works else 1}\n')
    pip.chmod(0o755)
    done = script("setup.sh")
    venv, install, *compiled = calls.read_text().splitlines()
    assert venv == f"-m venv {home / 'venv'}"
    project = home / "brats-stream"
    assert f"--constraint {project / 'constraints.txt'} --editable {project}[aws]" in install
    if works:
        assert done.returncode == 0, done.stderr
        assert [line.split()[:2] for line in compiled] == [["-c", "import"]]
        assert (home / "venv" / ".built").read_text() == mark(project)
    else:
        assert done.returncode != 0
        assert "set-up failed: " in done.stderr
        assert "pip install" in done.stderr
        assert not (home / "venv" / ".built").exists()


def test_a_python_without_venv_gets_it_from_lists_that_are_brought_first(
    home: Path, tmp_path: Path, script: Script
) -> None:
    (home / "venv" / ".built").unlink()
    calls, tried = tmp_path / "calls", tmp_path / "tried"
    stand_in(tmp_path, "python3.12", f'[ "$1" = -c ] || [ -e {tried} ] || {{ touch {tried}; exit 1; }}')
    stand_in(tmp_path, "sudo", 'exec env "$@"')
    locked = tmp_path / "locked"
    locked.touch()
    stand_in(tmp_path, "apt-get", f'rm {locked} 2> /dev/null && exit 100; echo "$DEBIAN_FRONTEND $@" >> {calls}')
    stand_in(tmp_path, "sleep", "exit 0")
    pip = home / "venv" / "bin" / "python"
    pip.write_text("#!/bin/bash\n")
    pip.chmod(0o755)
    done = script("setup.sh")
    assert done.returncode == 0, done.stderr
    update, install = calls.read_text().splitlines()
    assert update.startswith("noninteractive ")
    assert update.endswith(" update")
    assert install.endswith(" install --yes python3-venv")
    assert all("DPkg::Lock::Timeout=300" in call for call in (update, install))
    assert (home / "venv" / ".built").exists()


def test_another_python_is_refused(home: Path, tmp_path: Path, script: Script) -> None:
    (home / "venv" / ".built").unlink()
    for name in ("python3.12", "python3.11", "python3"):
        stand_in(tmp_path, name, '[ "$1" != --version ] || echo Python 3.10.12; exit 1')
    done = script("setup.sh")
    assert done.returncode != 0
    assert done.stderr == "set-up failed: wanted Python 3.11 or 3.12, found Python 3.10.12\n"


def test_forgetting_leaves_the_environment_and_no_secret(home: Path, tmp_path: Path, script: Script) -> None:
    stand_in(tmp_path, "ray", "exit 0")
    stand_in(tmp_path, "rm", '/bin/rm "${@/\\/tmp\\/ray/\\/nowhere}"')  # not this machine's own Ray
    for name in (".ray/auth_token", "ray_bootstrap_key.pem", ".aws/credentials", ".kaggle/kaggle.json", "brats.env"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text("secret")
    assert script("setup.sh").returncode == 0
    done = script("forget.sh")
    assert done.returncode == 0, done.stderr
    assert [path for path in home.rglob("*") if path.is_file() and path.read_text(errors="replace") == "secret"] == []
    assert (home / "venv" / ".built").exists()


def serve_grafana(tmp_path: Path, *, damaged: bool) -> None:
    """curl, apt-get and dpkg-deb that bring a Grafana and a Prometheus which write down how they are started."""
    inside = tmp_path / "grafana-11" / "bin"
    inside.mkdir(parents=True)
    server = f'#!/bin/bash\necho "$GF_SERVER_HTTP_ADDR $@" > {tmp_path / "started-grafana"}\n'
    (inside / "grafana").write_text(server)
    (inside / "grafana").chmod(0o755)
    archive = tmp_path / "grafana.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path, "grafana-11"], check=True)
    digest = "0" * 64 if damaged else hashlib.sha256(archive.read_bytes()).hexdigest()
    stand_in(tmp_path, "curl", f'case "$*" in *.sha256) echo "{digest}";; *) cat {archive};; esac')
    stand_in(tmp_path, "sudo", "exit 1")
    stand_in(tmp_path, "apt-get", "touch prometheus_2_amd64.deb")
    prometheus = f'#!/bin/bash\\necho "$@" > {tmp_path / "started-prometheus"}\\n'
    place = "usr/bin/prometheus"
    stand_in(tmp_path, "dpkg-deb", f"mkdir -p usr/bin; printf '{prometheus}' > {place}; chmod 755 {place}")


def test_prometheus_and_grafana_start_on_loopback(home: Path, tmp_path: Path, script: Script) -> None:
    serve_grafana(tmp_path, damaged=False)
    done = script("monitoring.sh", "install")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    session = tmp_path / "session"
    (session / "metrics" / "grafana" / "dashboards").mkdir(parents=True)
    stand_in(tmp_path, "realpath", f"echo {session}")
    stand_in(tmp_path, "setsid", 'shift; exec "$@"')  # in the foreground, so that its end can be waited for
    done = script("monitoring.sh", "start")
    assert done.returncode == 0, done.stderr
    prometheus = (tmp_path / "started-prometheus").read_text()
    assert "--web.listen-address=127.0.0.1:9090" in prometheus
    assert f"--config.file={session}/metrics/prometheus/prometheus.yml" in prometheus
    assert (tmp_path / "started-grafana").read_text().startswith("127.0.0.1 server")
    assert (session / "metrics" / "grafana" / "dashboards" / "brats-stream.json").exists()


def test_a_damaged_grafana_is_left_out(home: Path, tmp_path: Path, script: Script) -> None:
    serve_grafana(tmp_path, damaged=True)
    done = script("monitoring.sh", "install")
    assert done.returncode == 0
    assert "no Grafana" in done.stderr
    assert "the cluster works without it" in done.stderr
    assert not (home / "monitoring" / "grafana").exists()
