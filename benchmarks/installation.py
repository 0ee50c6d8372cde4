"""What an installation takes of a disk, beside nnU-Net v2's and MONAI's: each in a fresh environment, same versions.

Ours is as `make` installs it, without what nothing opens and compiled only as far as training imports it; the others
are as pip installs them.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from benchmarks.page import ROOT
from benchmarks.report import report
from benchmarks.settings import InstallationBenchmark
from storage import InputError

OURS = "ours"
LARGEST = 6


def wanted() -> dict[str, list[str]]:
    """What each row installs. The peers get the same PyTorch, MONAI what its BraTS tutorial installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours: list[str] = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    (torch,) = [line for line in ours if line.startswith("torch")]
    (nnunet,) = [line for line in project["optional-dependencies"]["bench"] if line.startswith("nnunetv2")]
    (monai,) = [line for line in project["optional-dependencies"]["dev"] if line.startswith("monai")]
    fixed = ("torch", "nvidia-dali", "ray", "nibabel", "numpy", "zarr", "tensorboardX")
    return {
        OURS: ours,
        "of these what is given: PyTorch, DALI, Ray, nibabel, NumPy, Zarr, tensorboardX": [
            line for line in ours if line.startswith(fixed)
        ],
        f"nnU-Net v2 {nnunet.partition('==')[2]}": [torch, nnunet],
        f"MONAI {monai.partition('==')[2]}": [torch, monai.replace("monai", "monai[nibabel,tqdm]"), "matplotlib"],
    }


def run(config: InstallationBenchmark) -> None:
    """Install each and weigh it."""
    rows = []
    for name, requirements in wanted().items():
        if not config.only or any(name.lower().startswith(only.lower()) for only in config.only):
            with tempfile.TemporaryDirectory() as folder:
                installed = make_ours(Path(folder)) if name == OURS else install(requirements, Path(folder))
                rows.append({"what": name, **weigh(installed)})
    report("What is installed", rows, config.json)


def make_ours(folder: Path) -> Path:
    """Install ours there, and return where its packages lie."""
    words = ["make", "--silent", f"PYTHON={sys.executable}", f"VENV={folder}", f"{folder}/.installed"]
    if subprocess.run(words, cwd=ROOT).returncode != 0:
        raise InputError("make could not install ours: see above")
    return packages_of(folder)


def install(requirements: Sequence[str], folder: Path) -> Path:
    """Make an environment in `folder` with these, held to our versions, and return where its packages lie."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"]
    done = subprocess.run([str(folder / "bin/python"), *words, str(ROOT / "constraints.txt"), *requirements])
    if done.returncode != 0:
        raise InputError(f"pip could not install {', '.join(requirements)}: see above")
    return packages_of(folder)


def packages_of(environment: Path) -> Path:
    """Where the packages of an environment lie."""
    (packages,) = environment.glob("lib/python*/site-packages")
    return packages


def weigh(packages: Path) -> Mapping[str, float | int | str]:
    """Columns of the table for the environment whose packages lie here: as it is on the disk, pip with it."""
    environment = packages.parents[2]
    size = {file: file.lstat().st_size for file in environment.rglob("*") if file.is_file() and not file.is_symlink()}
    compiled = sum(count for file, count in size.items() if file.suffix == ".pyc")
    found = [each for each in distributions(path=[str(packages)]) if each.name not in ("pip", "setuptools")]
    largest = sorted(((measure(each), each.name) for each in found), reverse=True)[:LARGEST]
    return {
        "packages": len(found),
        "MB": round(sum(size.values()) / 1e6),
        "MB without bytecode": round((sum(size.values()) - compiled) / 1e6),
        "largest, without bytecode": ", ".join(f"{shorten(name)} {count / 1e6:.0f}" for count, name in largest),
    }


def measure(package: Distribution) -> int:
    """Bytes of a package's own files, without bytecode."""
    return sum(file.lstat().st_size for file in _files(package))


def shorten(name: str) -> str:
    """A package's name without what it is built for."""
    return re.sub(r"^nvidia-|-cu(da)?\d+$", "", name)


def _files(package: Distribution) -> Iterator[Path]:
    for each in package.files or []:
        path = Path(str(each.locate()))
        if path.suffix != ".pyc" and path.is_file():
            yield path
