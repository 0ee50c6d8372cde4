"""What `make` installs into, in a folder with any name, with a Python that does not do, and after it failed halfway."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    folder = tmp_path / "my clone [copy] é"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def program(place: Path, lines: str) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\n{lines}\n")
    place.chmod(0o755)
    return str(place)


def install(clone: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    command = ["make", *variables, ".venv/.installed"]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True)


def test_only_what_nothing_opens_is_dropped(clone: Path) -> None:
    program(clone / ".venv" / "bin" / "python", "exit 0")  # nothing is installed by it
    packages = clone / ".venv" / "lib" / "python3.11" / "site-packages"
    kept = ["x.cpython-311-x86_64-linux-gnu.so", "a/b.cpython-311-x86_64-linux-gnu.so", "a/c.py", "a/d.abi3.so"]
    dropped = ["x.cpython-312-x86_64-linux-gnu.so", "a/tests/t.py", "torch/test/t.py", "ray/jars/j.jar"]
    for name in (*kept, *dropped):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    done = install(clone)
    assert done.returncode == 0, done.stderr
    assert {str(path.relative_to(packages)) for path in packages.rglob("*") if path.is_file()} == set(kept)


def test_a_python_that_does_not_do_is_named_and_leaves_no_environment(clone: Path, tmp_path: Path) -> None:
    say = "import sys; sys.version_info = (3, 13, 1, 'final', 0); exec(sys.argv[2])"
    python = program(tmp_path / "python3", f'exec {sys.executable} -c "{say}" "$@"')
    done = install(clone, f"PYTHON={python}")
    assert done.returncode != 0 and f"wanted Python 3.11 or 3.12, {python} is 3.13.1: type make PYTHON=" in done.stderr
    assert not (clone / ".venv").exists()


def test_half_an_environment_does_not_stay(clone: Path, tmp_path: Path) -> None:
    """As Debian's Python makes it without the package python3-venv: the next try would find a Python without pip."""
    venv = 'mkdir -p "$3/bin" && ln -s /bin/true "$3/bin/python"; echo no ensurepip; exit 1'
    python = program(tmp_path / "python3", f'if [ "$1" = -m ]; then {venv}; fi; exec {sys.executable} "$@"')
    done = install(clone, f"PYTHON={python}")
    assert done.returncode != 0 and "no ensurepip" in done.stdout
    assert not (clone / ".venv").exists()
