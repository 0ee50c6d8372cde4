"""Imports go one way, between packages and between the rooms of one, and nothing hides a library."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]

# The rooms of a package in their order: each may import those before it. What lies beside them comes first or last.
ROOMS = {
    "storage": ("labels", "scans", "cases", "store", "archives", "splits"),
    "ray_jobs": (
        "settings",
        "pages",
        "on_ray",
        "checkpoints",
        "evaluation",
        "pictures",
        "watching",
        "reporting",
        "training",
        "searching",
        "predicting",
        "exchange",
    ),
}
# All that a user types, and what opens the door.
DOOR = {
    *("train", "tune", "threshold", "convert", "predict", "score", "package", "give", "bring", "show"),
    *("spot_watcher", "placement_groups", "resubmit"),
    "__init__",
}

# What each package may import of the others, and what it must not know.
MAY_IMPORT = {
    "storage": set(),
    "dali_pipelines": {"storage"},
    "models": set(),
    "scoring": {"storage"},
    "ray_jobs": {"storage", "dali_pipelines", "models", "scoring"},
    "benchmarks": {"storage", "dali_pipelines", "models", "scoring", "ray_jobs"},
    "examples": {"storage", "dali_pipelines", "models"},
}
MUST_NOT_KNOW = {
    "storage": {"torch", "nvidia", "ray"},
    "storage/labels": {"nibabel", "zarr", "obstore"},
    "storage/scans": {"zarr", "obstore"},
    "storage/cases": {"zarr", "obstore"},
    "storage/archives": {"zarr", "nibabel"},
    "storage/splits": {"zarr", "nibabel"},
    "dali_pipelines": {"ray"},
    "models": {"ray", "zarr", "nvidia", "nibabel", "obstore"},
    "scoring": {
        "torch",
        "ray",
        "nvidia",
        "zarr",
        "nibabel",
        "obstore",
        "storage.scans",
        "storage.cases",
        "storage.store",
    },
    "ray_jobs/settings": {"torch", "ray", "nvidia"},
    "ray_jobs/pages": {"torch", "ray", "nvidia", "models", "dali_pipelines", "storage", "ray_jobs.settings"},
    "ray_jobs/on_ray": {"models"},
    "ray_jobs/checkpoints": {"ray", "nvidia", "models", "dali_pipelines"},
    "ray_jobs/evaluation": {"ray"},
    "ray_jobs/pictures": {"ray", "torch", "ray_jobs.on_ray", "ray_jobs.checkpoints"},
    "ray_jobs/reporting": {"ray", "torch", "nvidia"},
    "ray_jobs/predicting": {"ray", "ray_jobs.training", "ray_jobs.searching"},
    "examples": {"ray"},
    "ray_jobs/exchange": {"ray", "ray_jobs.training", "ray_jobs.searching", "ray_jobs.predicting"},
}

# What those who use a package install, and what of its imports comes with something else that is asked for.
EXTRAS = {
    "storage": (),
    "dali_pipelines": (),
    "models": (),
    "scoring": (),
    "ray_jobs": ("train", "onnx"),
    "benchmarks": ("train", "dev", "bench"),
    "examples": ("dev",),
}
COMES_WITH = {"yaml": "ray", "grpc": "ray", "triton": "torch", "PIL": "matplotlib"}


def imported_modules(file: Path) -> set[str]:
    """Dotted names of all modules that `file` imports or may import, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported(file: Path) -> set[str]:
    """Top-level names of all imports in `file`, those inside functions included."""
    return {name.split(".")[0] for name in imported_modules(file)}


@pytest.mark.parametrize(("place", "unknown"), MUST_NOT_KNOW.items())
def test_a_room_does_not_know_what_it_must_not(place: str, unknown: set[str]) -> None:
    files = sorted((ROOT / place).rglob("*.py"))
    assert files
    for file in files:
        for name in imported_modules(file):
            wrong = [each for each in unknown if f"{name}.".startswith(f"{each}.")]
            assert not wrong, f"{file.relative_to(ROOT)} must not import {name}"


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_have_an_order(package: str) -> None:
    rooms = ROOMS[package]
    here = {folder.name for folder in (ROOT / package).iterdir() if folder.is_dir() and folder.name != "__pycache__"}
    assert here == set(rooms)
    for index, room in enumerate(rooms):
        init = ast.parse((ROOT / package / room / "__init__.py").read_text())
        assert ast.get_docstring(init) and len(init.body) == 1, f"{package}/{room}: its one sentence, and no more"
        for file in (ROOT / package / room).rglob("*.py"):
            for name in imported_modules(file):
                first, second = [*name.split("."), ""][:2]
                place = f"{file.relative_to(ROOT)} imports {name}"
                if first != package:
                    continue
                if second in rooms:
                    assert rooms.index(second) <= index, f"{place}: {second} comes after {room}"
                else:  # the package's own public names would come back into the room
                    assert (package, second) == ("storage", "errors"), f"{place}, which lies outside the rooms"


def test_at_the_door_lies_only_what_a_user_types() -> None:
    assert {file.stem for file in (ROOT / "ray_jobs").glob("*.py")} == DOOR
    for file in (ROOT / "ray_jobs").glob("*.py"):
        assert file.read_text().count("\n") <= 120, f"{file.name} is not thin"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        names = imported(file)
        wrong = (names & (MAY_IMPORT.keys() | {"tests", "cluster"})) - MAY_IMPORT[package] - {package}
        assert not wrong, f"{file.relative_to(ROOT)} must not import {', '.join(sorted(wrong))}"


@pytest.mark.processes
def test_the_training_loop_and_the_benchmarks_need_no_ray() -> None:
    """A GPU machine without Ray can run both."""
    files = sorted((ROOT / "benchmarks").rglob("*.py"))
    benchmarks = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if file.stem != "__init__"]
    names = ", ".join(["ray_jobs.training.train_loop", *benchmarks])
    script = f"import sys; sys.modules['ray'] = None; import {names}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", EXTRAS)
def test_what_a_package_imports_is_asked_for(package: str) -> None:
    """So the parts can be installed without Ray, and the commands with their extra alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS[package] for line in _extra(project, extra))]
    asked = {canonicalize_name(Requirement(line).name) for line in lines}
    brought = packages_distributions()
    for file in (ROOT / package).rglob("*.py"):
        for name in imported(file) - sys.stdlib_module_names - MAY_IMPORT.keys():
            owners = {canonicalize_name(owner) for owner in brought.get(COMES_WITH.get(name, name), [name])}
            assert owners & asked, f"{file.relative_to(ROOT)} imports {name}: is it in pyproject.toml?"


def _extra(project: dict[str, Any], name: str) -> list[str]:
    """What an extra asks for, and the extras of ours in it."""
    lines: list[str] = project["optional-dependencies"][name]
    own = [extra for line in lines if Requirement(line).name == project["name"] for extra in Requirement(line).extras]
    return [*lines, *(line for extra in own for line in _extra(project, extra))]


def test_nothing_hides_a_library() -> None:
    """`python ray_jobs/train.py` puts ray_jobs first on the path, so what is named like a library there would be it."""
    libraries = set(sys.stdlib_module_names) | set(packages_distributions()) - MAY_IMPORT.keys()
    for package in MAY_IMPORT:
        inside = [path for path in (ROOT / package).rglob("*") if path.suffix == ".py" or path.is_dir()]
        names = {path.stem for path in inside} - {"__init__", "__main__", "__pycache__"}
        assert not names & (libraries | MAY_IMPORT.keys()), package


def test_files_and_functions_stay_small() -> None:
    for package in MAY_IMPORT:
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text()
            assert text.count("\n") <= 300, f"{file.relative_to(ROOT)} is longer than 300 lines"
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or 0) - node.lineno + 1
                    assert length <= 60, f"{file.relative_to(ROOT)}: {node.name} is longer than 60 lines"


def test_regions_are_named_in_the_table_of_tasks_alone() -> None:
    """All else follows a store's task. Names in files of others are read by a table of words, which has two of them."""
    places = (*MAY_IMPORT, "cluster", ".ci", "Makefile", "pyproject.toml")
    kinds = {".py", ".pyi", ".html", ".sh", ".yaml", ".toml", ".md", ""}
    files = [
        file
        for place in places
        for file in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
        if file.is_file()
        and (file.suffix in kinds or file.parent.name == "grafana")
        and "__pycache__" not in file.parts
    ]
    assert len(files) > 200
    named = re.compile(r"(?<![A-Za-z0-9])_?(WT|TC|ET)(?![A-Za-z0-9])")
    found = {str(file.relative_to(ROOT)) for file in files if named.search(file.read_text())}
    assert found == {"storage/labels/tasks.py"}


def test_commands_import_ray_only_through_the_package() -> None:
    """ray_jobs/__init__.py sets what Ray reads when it is first imported."""
    for file in (ROOT / "ray_jobs").glob("*.py"):
        assert "ray" not in imported(file), f"{file.name} must leave importing ray to the modules it uses"
