"""Imports go one way, and no file of ray_jobs hides a library."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each package may import of the others, and what it must not know.
MAY_IMPORT = {
    "storage": set(),
    "dali_pipelines": {"storage"},
    "models": set(),
    "ray_jobs": {"storage", "dali_pipelines", "models", "benchmarks"},
    "benchmarks": {"storage", "dali_pipelines", "models", "ray_jobs"},
}
MUST_NOT_KNOW = {
    "storage": {"torch", "nvidia", "ray"},
    "dali_pipelines": {"ray"},
    "models": {"ray", "zarr", "nvidia", "nibabel", "obstore"},
}


def imported(file: Path) -> set[str]:
    """Top-level names of all imports in `file`, those inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        names = imported(file)
        wrong = (names & (MAY_IMPORT.keys() | {"tests", "cluster"})) - MAY_IMPORT[package] - {package}
        wrong |= names & MUST_NOT_KNOW.get(package, set())
        assert not wrong, f"{file.relative_to(ROOT)} must not import {', '.join(sorted(wrong))}"


def test_the_jobs_import_benchmarks_only_to_run_them() -> None:
    users = {file.name for file in (ROOT / "ray_jobs").glob("*.py") if "benchmarks" in imported(file)}
    assert users <= {"benchmark.py"}


def test_the_training_loop_and_the_benchmarks_need_no_ray() -> None:
    """A GPU machine without Ray can run both."""
    names = "ray_jobs.train_loop, ray_jobs.benchmark, benchmarks.gpu_check, benchmarks.train_step, benchmarks.loader"
    names += ", benchmarks.end_to_end, benchmarks.network_check"
    script = f"import sys; sys.modules['ray'] = None; import {names}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["ray_jobs", "benchmarks"])
def test_no_script_hides_a_library(folder: str) -> None:
    """`python ray_jobs/train.py` puts ray_jobs first on the path, so a file named like a library would be it."""
    names = {file.stem for file in (ROOT / folder).glob("*.py")} - {"__init__"}
    libraries = set(sys.stdlib_module_names) | set(packages_distributions()) | MAY_IMPORT.keys()
    assert not names & libraries


def test_files_and_functions_stay_small() -> None:
    for package in MAY_IMPORT:
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text()
            assert text.count("\n") <= 300, f"{file.relative_to(ROOT)} is longer than 300 lines"
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or 0) - node.lineno + 1
                    assert length <= 60, f"{file.relative_to(ROOT)}: {node.name} is longer than 60 lines"


def test_commands_import_ray_only_through_the_package() -> None:
    """ray_jobs/__init__.py sets what Ray reads when it is first imported."""
    commands = [file for file in (ROOT / "ray_jobs").glob("*.py") if '__name__ == "__main__"' in file.read_text()]
    assert commands
    for file in commands:
        assert "ray" not in imported(file), f"{file.name} must leave importing ray to the modules it uses"
