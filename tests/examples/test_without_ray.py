"""The parts need nothing of what the extra [train] brings, and the commands say in a line that it is missing."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
PARTS = ("storage", "dali_pipelines", "models", "scoring")
EXAMPLES = ("conversion", "plain_loop", "thresholds", "read_with_zarr")  # the others show somebody else's packages

RUN = "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


def run_without(names: set[str], script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where these modules are not to be had."""
    refuse = f"import sys; sys.modules.update(dict.fromkeys({sorted(names)}))\n"
    command = [sys.executable, "-c", refuse + script, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def brought_by_train() -> set[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {canonicalize_name(Requirement(line).name) for line in extras["train"]}
    owned = {name: {canonicalize_name(owner) for owner in owners} for name, owners in packages_distributions().items()}
    return {name for name, owners in owned.items() if owners <= asked}


def test_the_parts_and_their_examples_need_no_ray() -> None:
    assert {"ray", "safetensors", "skimage", "tensorboard", "tensorboardX", "optuna"} <= brought_by_train()
    files = [file for part in PARTS for file in (ROOT / part).rglob("*.py") if "import triton" not in file.read_text()]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    names += [f"examples.{name}" for name in EXAMPLES]
    done = run_without(brought_by_train(), f"import {', '.join(names)}; print('all')")
    assert done.stdout == "all\n", done.stderr


@pytest.mark.parametrize("name", ["train", "convert"])
def test_a_command_without_ray_says_so_in_a_line(name: str, source: Path, tmp_path: Path) -> None:
    flags = {
        "train": ["--source", str(source), "--runs", str(tmp_path)],
        "convert": ["--source", str(source), "--store", str(tmp_path / "store")],
    }
    done = run_without({"ray", "grpc"}, RUN, str(ROOT / "ray_jobs" / f"{name}.py"), *flags[name])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(
        r"error: wanted the packages of \[train\], Ray among them, (ray|grpc) is not installed here; ", line
    )
    assert line.endswith('pip install --constraint constraints.txt --editable ".[train]"')
    assert not list(tmp_path.iterdir())


def test_scores_need_no_ray(source: Path, tmp_path: Path) -> None:
    script, case = str(ROOT / "ray_jobs" / "score.py"), str(source / "BraTS20_Training_001")
    flags = ["--prediction", case, "--label", case, "--output", str(tmp_path / "scores")]
    done = run_without(brought_by_train(), RUN, script, *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores" / "metrics.csv").exists()
