"""What module:name and NAME=VALUE mean, and what is said where they mean nothing."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import find_distribution
from models.import_path import arguments_for, find_named, parse_argument, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("1e-3", 1e-3),
        ("1,2,2,4", (1, 2, 2, 4)),
        ("[1, 2]", [1, 2]),
        ("True", True),
        ("false", False),
        ("None", None),
        ("none", "none"),  # torch's reduction="none"
        ("instance", "instance"),
        ("relu,prelu", ("relu", "prelu")),
        ("('group', {'num_groups': 4})", ("group", {"num_groups": 4})),
        ("{[1]: 2}", "{[1]: 2}"),  # no key that Python takes
    ],
)
def test_values_are_read_as_python_writes_them(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_placeholders_stand_for_the_runs_own() -> None:
    known = {"scans": 4, "regions": 3}
    assert parse_argument("num_classes={regions}", known) == ("num_classes", 3)
    assert parse_argument("widths={scans},8", known) == ("widths", (4, 8))
    for wrong in ("init_filters", "=3", "a-b=3"):
        with pytest.raises(ValueError, match="wanted NAME=VALUE, such as init_filters=16, got "):
            parse_argument(wrong, known)


def test_arguments_are_those_that_it_has() -> None:
    def build(in_channels: int, *, width: int, depth: int = 2) -> None: ...

    def give(*texts: str, automatic: Any = None) -> dict[str, Any]:
        return arguments_for(build, "own:build", texts, known={}, automatic=automatic or {"in_channels": 4}, free=0)

    assert give("width=8") == {"in_channels": 4, "width": 8}
    assert give("width=8", "in_channels=1") == {"in_channels": 1, "width": 8}
    assert give("width=8", automatic={"in_channels": 4, "spatial_dims": 3}) == {"in_channels": 4, "width": 8}
    with pytest.raises(
        ValueError, match="own:build has no argument wdth, did you mean width\\?; it takes in_channels, "
    ):
        give("wdth=8")
    with pytest.raises(ValueError, match="own:build wants width: give width=VALUE; it takes in_channels, width, depth"):
        give()
    anything = arguments_for(lambda **_: None, "own:any", ["a=1"], known={}, automatic={"in_channels": 4}, free=0)
    assert anything == {"a": 1}


def test_what_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_here.py").write_text("raise RuntimeError('no licence\\nat all')\n")
    for path, says in {
        "os.path": "wanted module:name, such as ",
        ":name": "wanted module:name, such as ",
        "not_there:name": r"not_there cannot be imported \(ModuleNotFoundError: .*\): install it",
        "broken_here:name": r"broken_here cannot be imported \(RuntimeError: no licence\): ",
        "os.path:joim": "os.path has no joim that can be called; did you mean join",
        "os:sep": "os has no sep that can be called",
    }.items():
        with pytest.raises(ValueError, match=says) as caught:
            find_named(path)
        assert "\n" not in str(caught.value)
    assert find_named("os:path.join") is find_named("os.path:join")


def test_the_distribution_is_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_distribution("numpy.linalg:norm") == f"numpy {np.__version__}"
    assert find_distribution("a_module_of_ones_own:Network") is None


def test_no_library_that_computes_is_imported_for_it() -> None:
    source = Path(sys.modules["models.import_path"].__file__ or "").read_text()
    assert "import torch" not in source
