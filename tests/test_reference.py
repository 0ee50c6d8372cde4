"""docs/api.md is what the sources say, and they say what a user of the parts wants to know."""

import ast
import importlib
import importlib.util
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("griffe", reason="griffe isn't installed (pip install .[dev])")

ROOT = Path(__file__).parents[1]
ARRAY = re.compile(r"\b(Tensor|NDArray|CaseArrays)\b")
# image_BMDHW, or BMDHW in a sentence; (R, N, 3); what has no axes.
AXES = re.compile(r"\w_[A-Z2]{1,5}(\b|…)|\b[A-Z]{0,3}(HW|XYZ)\b|[([][A-Z](, [A-Z0-9…]+)+[)\]]|[Ss]calar|[Vv]ector")


def load() -> Any:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = load()
modules = reference.load()
NAMES = {
    f"{package}.{name}": thing
    for package, module in modules.items()
    for name, thing in reference.public_names(module).items()
}


def said_of(thing: Any) -> str:
    return thing.docstring.value if thing.docstring else ""


def functions_of(thing: Any) -> Iterator[tuple[Any, str]]:
    """The function, or the methods of a class, each with what is said of it: the class's docstring is of __init__."""
    if thing.is_function:
        yield thing, said_of(thing)
    elif thing.is_class:
        for name, member in thing.members.items():
            if (name in ("__init__", "__post_init__") or not name.startswith("_")) and member.is_function:
                yield member, said_of(member) + said_of(thing) * name.startswith("_")


def test_the_page_is_made_of_the_sources() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.make_page(modules), "type make docs"


@pytest.mark.parametrize("package", reference.PACKAGES)
def test_what_is_listed_is_what_a_package_hands_out(package: str) -> None:
    listed = [name.partition(".")[2] for name in NAMES if name.startswith(f"{package}.")]
    assert listed == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_explained(name: str) -> None:
    assert said_of(NAMES[name])
    if NAMES[name].is_class:
        for method, member in reference.public_members(NAMES[name]).items():
            if method != "__init__" and (member.is_function or "property" in member.labels):
                assert said_of(member), method


@pytest.mark.parametrize("name", NAMES)
def test_arrays_have_their_axes(name: str) -> None:
    """In their names or in what is said; what a function gives back has no name."""
    fields = reference.public_members(NAMES[name]).values() if NAMES[name].is_class else []
    arrays = [(field.name, field.annotation, said_of(field) + said_of(NAMES[name])) for field in fields]
    for function, said in functions_of(NAMES[name]):
        arrays += [(each.name, each.annotation, said) for each in function.parameters]
        arrays.append((f"what {function.name} returns", function.returns, said))
    for called, annotation, said in arrays:
        if ARRAY.search(str(annotation)):
            assert AXES.search(called) or AXES.search(said), called


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_named(name: str) -> None:
    """Those that a function raises itself."""
    for function, said in functions_of(NAMES[name]):
        for node in ast.walk(ast.parse(textwrap.dedent(function.source))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                assert node.exc.func.id in said, f"{function.name} raises {node.exc.func.id}"
