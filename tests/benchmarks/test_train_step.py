import json
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from benchmarks import inference
from benchmarks.settings import InferenceBenchmark, TrainStepBenchmark
from benchmarks.train_step import run
from models import ImportedConfig
from storage import InputError
from tests import own_networks


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation takes minutes on a busy CPU; that it is asked for is what matters here."""
    monkeypatch.setattr(nn.Module, "compile", lambda self: sys.stdout.write("compiled"))


def _rows(tmp_path: Path, **options: Any) -> dict[str, dict[str, Any]]:
    file = tmp_path / "figures.json"
    run(
        TrainStepBenchmark(
            **({"preset": "tiny2d", "patch": (16, 16), "steps": 1, "precision": "float32"} | options), json=file
        )
    )
    return {row["network"]: row for row in json.loads(file.read_text())["rows"]}


@pytest.mark.processes
def test_every_switch_changes_what_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    default = _rows(tmp_path)["default"]
    assert default["parameters"] == 483_014
    assert default["speed"] == 1
    assert min(default["samples/s"], default["CPU s/sample"], default["GFLOP/sample"]) > 0
    assert _rows(tmp_path, precision="bfloat16", channels_last=True)["default"]["precision"] == "bfloat16"
    # Recomputing costs a second forward pass: the count of operations must see it.
    checkpointing = _rows(tmp_path, activation_checkpointing=True)["default"]
    assert checkpointing["GFLOP/sample"] > 1.2 * default["GFLOP/sample"]
    assert "compiled" not in capsys.readouterr().out
    _rows(tmp_path, compile=True)
    assert "compiled" in capsys.readouterr().out


@pytest.mark.processes
def test_an_imported_network_is_timed_by_the_flags_of_training(tmp_path: Path) -> None:
    options = {"preset": "tiny", "patch": (16, 16, 16)}
    named = ImportedConfig(network="tests.own_networks:Plain", arguments=("width=8",))
    rows = _rows(tmp_path, model=named, **options)
    assert rows["default"]["parameters"] == sum(
        weight.numel() for weight in own_networks.Plain(4, 3, width=8).parameters()
    )
    with pytest.raises(InputError, match="--activation-checkpointing is our U-Nets'"):
        _rows(tmp_path, model=named, activation_checkpointing=True, **options)
    with pytest.raises(
        InputError, match=r"--patch: tests.own_networks:Even does not take patches \(2, 4, 17, 16, 16\): "
    ):
        _rows(tmp_path, model=ImportedConfig(network="tests.own_networks:Even"), patch=(17, 16, 16), preset="tiny")


@pytest.mark.processes
def test_peers_are_timed_at_the_same_widths(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    pytest.importorskip("pytorch3dunet")
    rows = _rows(tmp_path, peers=True)
    assert rows["pytorch-3dunet"]["parameters"] == rows["ours as pytorch-3dunet"]["parameters"]
    assert rows["pytorch-3dunet"]["GFLOP/sample"] == pytest.approx(rows["ours as pytorch-3dunet"]["GFLOP/sample"])
    # DynUNet's transposed convolutions have no bias.
    assert rows["MONAI DynUNet"]["parameters"] == pytest.approx(rows["ours as DynUNet"]["parameters"], rel=1e-3)


@pytest.mark.processes
def test_a_missing_peer_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("monai", "pytorch3dunet"):
        monkeypatch.setitem(sys.modules, f"{name}.networks.nets" if name == "monai" else f"{name}.unet3d.model", None)
    rows = _rows(tmp_path, peers=True)
    assert set(rows) == {"default", "ours as DynUNet", "ours as pytorch-3dunet"}
    assert "left out MONAI DynUNet" in capsys.readouterr().out


def test_ray_is_not_imported() -> None:
    import ast

    source = (Path(__file__).parents[2] / "benchmarks" / "train_step.py").read_text()
    imported = {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] in {"ray", "ray_jobs"} for name in imported)


def test_what_the_user_can_mend_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="--preset must be one of nnunet, "):
        run(TrainStepBenchmark(preset="nnunet4d"))
    with pytest.raises(InputError, match=r"--patch: .* take 16 x 48 or 56"):
        run(TrainStepBenchmark(preset="tiny2d", patch=(16, 50)))
    with pytest.raises(InputError, match="--device must be cpu or a GPU of this machine"):
        run(TrainStepBenchmark(preset="tiny2d", device="cuda:99"))
    with pytest.raises(InputError, match="--window: a 2-D U-Net wants 2 sides"):
        inference.run(InferenceBenchmark(preset="tiny2d"))
