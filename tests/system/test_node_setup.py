"""A node's environment built for real by cluster/node/setup.sh: pip's minutes and gigabytes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
PACKAGES = ("storage", "dali_pipelines", "models", "ray_jobs", "benchmarks", "cluster")


def test_a_node_gets_the_project_and_its_pins_once(tmp_path: Path) -> None:
    project = tmp_path / "brats-stream"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    environment = os.environ | {"HOME": str(tmp_path)}
    own = Path.home() / ".config" / "pip" / "pip.conf"
    if own.exists():  # where this machine's packages come from
        environment["PIP_CONFIG_FILE"] = str(own)
    setup = ["bash", str(project / "cluster" / "node" / "setup.sh")]
    done = subprocess.run(setup, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    python = tmp_path / "venv" / "bin" / "python"
    ask = (
        "import boto3, ray, torch, ray_jobs; print(ray.__version__, torch.__version__.split('+')[0], ray_jobs.__file__)"
    )
    seen = subprocess.run([python, "-c", ask], cwd="/", env=environment, capture_output=True, text=True)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert seen.stdout.split() == [pins["ray"], pins["torch"], str(project / "ray_jobs" / "__init__.py")], seen.stderr
    mark = tmp_path / "venv" / ".built"
    written = mark.stat().st_mtime_ns
    assert subprocess.run(setup, env=environment).returncode == 0
    assert mark.stat().st_mtime_ns == written
