"""One lock for all machines: every package that a laptop or a node with CUDA installs has its version there."""

import re
import subprocess
import tomllib
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINS = dict(line.split("==") for line in LINES)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_package_is_there_once_by_its_normal_name() -> None:
    assert sorted(LINES) == LINES
    assert len(PINS) == len(LINES)
    assert all(normal(name) == name for name in PINS)


def test_what_the_project_asks_for_is_what_is_locked() -> None:
    """Libraries by a range, so that they fit beside what others have; what only the tests run exactly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    libraries = [Requirement(line) for line in [*project["dependencies"], *extras["train"], *extras["aws"]]]
    for asked in [*libraries, *map(Requirement, [*extras["dev"], *extras["docs"]])]:
        if asked.name != project["name"]:
            assert asked.specifier.contains(PINS[normal(asked.name)])
            assert {each.operator for each in asked.specifier} == ({">=", "<"} if asked in libraries else {"=="})


def test_the_cuda_stack_is_locked_too() -> None:
    """Where torch here was built without CUDA its packages are known by these names alone."""
    built = [re.match(r"[\w.-]+", line)[0] for line in requires("torch") or [] if "extra ==" not in line]  # type: ignore[index]
    cuda = {"triton", "setuptools", "nvidia-nccl-cu13", "nvidia-cudnn-cu13", "nvidia-cublas", "cuda-toolkit"}
    assert {normal(name) for name in built} | cuda <= PINS.keys()
    assert PINS["torch"] == distribution("torch").version.split("+")[0]


@pytest.mark.system
def test_nothing_that_a_node_with_cuda_installs_is_missing() -> None:
    done = subprocess.run(["make", "lock-check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
