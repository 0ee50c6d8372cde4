"""nnU-Net's networks here: its own logits, by its own windows, mirroring and normalisation; else a refusal by name."""

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import RegionRules
from ray_jobs.checkpoints.lookup import find_checkpoint, read_config
from ray_jobs.evaluation.trained import open_trained
from ray_jobs.exchange.description import describe_network
from ray_jobs.exchange.giving import give
from ray_jobs.exchange.nnunet_results import bring
from ray_jobs.predicting.predict_config import (
    InferenceConfig,
    PredictConfig,
    choose_decision,
    choose_modalities,
    choose_task,
)
from ray_jobs.predicting.prediction import CasePredictor, PredictionPlan
from ray_jobs.predicting.reading import FolderInput
from storage import InputError, find_cases
from storage.labels.tasks import GLI_2021_TASK
from storage.store.objects import Objects

PEER = Path(__file__).with_name("nnunet_peer.py")
SPEC = importlib.util.spec_from_file_location("nnunet_peer", PEER)
assert SPEC is not None and SPEC.loader is not None
peer = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(peer)
SCANS = ("t1", "t1ce", "t2", "flair")
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def results(tmp_path: Path) -> Callable[[str], Path]:
    """A results folder that nnU-Net 2.8.1 wrote."""

    def unpack(kind: str) -> Path:
        folder = tmp_path / kind
        with tarfile.open(Path(__file__).parent / "data" / f"nnunet_{kind}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        return folder

    return unpack


@pytest.fixture
def brought(results: Callable[[str], Path], tmp_path: Path) -> Callable[[str | Path], str]:
    """A checkpoint of a results folder, or of the one of that kind."""

    def make(place: str | Path) -> str:
        source = results(place) if isinstance(place, str) else place
        folder = tmp_path / f"brought_{source.name}"
        folder.mkdir()
        for name, content in bring(source, "0", "checkpoint_final.pth", GLI_2021_TASK).items():
            (folder / name).write_bytes(content)
        return str(folder)

    return make


def write_case(folder: Path, scans_MDHW: NDArray[np.int16]) -> None:
    """As BraTS has it: LPS, 1 mm."""
    for name, scan in zip(SCANS, scans_MDHW, strict=True):
        path = folder / "BraTS20_Training_001" / f"BraTS20_Training_001_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.nifti1.save(nib.nifti1.Nifti1Image(scan.T, np.diag([-1.0, -1.0, 1.0, 1.0])), path)


def predict_logits(checkpoint: str, cases: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float32]:
    """What predict.py takes the sigmoid of, in the frame of the whole scan."""
    found = find_checkpoint(checkpoint)
    config = PredictConfig(checkpoint=(checkpoint,), input=str(cases), output="unused")
    task, scans = choose_task([found]), choose_modalities(config, [found])
    (case,) = find_cases(cases, modalities=scans).cases
    labels = tuple(region.labels for region in task.regions)
    plan = PredictionPlan(
        checkpoints=(checkpoint,),
        source=FolderInput(cases={case.case_id: case}, modalities=scans, task=task),
        rules=RegionRules(labels=labels, **vars(choose_decision(config, [found], task))),
        inference=InferenceConfig(),
        probabilities=False,
    )
    predictor = CasePredictor(plan, [open_trained(checkpoint, torch.device("cpu"))], torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "sigmoid_", lambda logits: logits)
    with torch.inference_mode():
        return predictor.probabilities(plan.source.read(case.case_id)).numpy()


def compare(ours_RDHW: NDArray[np.float32], logits: Path) -> None:
    with np.load(logits) as theirs:
        box = tuple(slice(low, high) for low, high in theirs["box"])
        inside = ours_RDHW[(slice(None), *box)][:, ::2, ::2, ::2]
        assert np.abs(theirs["logits"]).max() > 1
        np.testing.assert_allclose(inside, theirs["logits"], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_logits_are_nnunets_own(
    kind: str, results: Callable[[str], Path], tmp_path: Path, run_here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_here("bring.py", "nnunet", str(results(kind)), "--output", str(tmp_path / "brought"))
    assert done.returncode == 0, done.stderr
    write_case(tmp_path / "cases", peer.make_scans())
    ours_RDHW = predict_logits(str(tmp_path / "brought"), tmp_path / "cases", monkeypatch)
    compare(ours_RDHW, tmp_path / kind / "logits.npz")
    again = run_here("bring.py", "nnunet", str(tmp_path / kind), "--output", str(tmp_path / "brought"))
    assert again.returncode == 2 and "name another --output" in again.stderr


def test_the_checkpoint_says_where_it_comes_from(brought: Callable[[str | Path], str]) -> None:
    checkpoint = find_checkpoint(brought("plain"))
    config = read_config(checkpoint)
    assert config.validation.mirror and config.validation.overlap == 0.5 and not config.validation.head_only
    assert config.sampling.patch_shape == peer.PATCH and config.model.widths == peer.WIDTHS
    said = json.loads(checkpoint.read("config.json"))
    assert said["modalities"] == list(SCANS)
    assert said["brought_from"].startswith("nnU-Net v2 (Dataset137_BraTS, 3d_fullres, nnUNetTrainer, fold_0/")


@pytest.mark.processes  # git says the commit
def test_given_on_it_says_nnunets_ways(brought: Callable[[str | Path], str], tmp_path: Path) -> None:
    folder = brought("plain")
    described = describe_network(find_checkpoint(folder))
    assert described["window"]["step"].startswith("evenly spread")
    assert "enclose" in described["normalisation"]["statistics_over"]
    assert described["brought_from"].startswith("nnU-Net v2")
    with pytest.raises(InputError, match="give it as onnx"):
        give("monai", find_checkpoint(folder), Objects(tmp_path / "given", create=True))


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_there_and_back_nothing_changes(kind: str, brought: Callable[[str | Path], str], tmp_path: Path) -> None:
    first = brought(kind)
    give("nnunet", find_checkpoint(first), Objects(tmp_path / "given", create=True))
    again = brought(tmp_path / "given")
    assert (Path(again) / "model.safetensors").read_bytes() == (Path(first) / "model.safetensors").read_bytes()
    one, other = (json.loads((Path(place) / "config.json").read_text()) for place in (first, again))
    for told in (one, other):  # where they come from
        del told["store_digest"], told["brought_from"]
    assert one == other


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_nnunet_runs_what_we_give(kind: str, brought: Callable[[str | Path], str], tmp_path: Path) -> None:
    """Its network has every weight, its logits are those of the file, and its command writes a segmentation."""
    pytest.importorskip("nnunetv2", reason="nnunetv2 isn't installed (it is in .venv-bench)")
    given = tmp_path / "given"
    give("nnunet", find_checkpoint(brought(kind)), Objects(given, create=True))
    root = str(Path(__file__).parents[3])
    subprocess.run([sys.executable, str(PEER), "given", str(given)], env=os.environ | {"PYTHONPATH": root}, check=True)
    with np.load(tmp_path / kind / "logits.npz") as wanted, np.load(given / "logits.npz") as came:
        np.testing.assert_allclose(came["logits"], wanted["logits"], rtol=0, atol=1e-4)
        edges = (wanted["logits"] > 0).any(0)
    write_case(tmp_path / "cases", peer.make_scans())
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    inputs.mkdir()
    for channel, name in enumerate(SCANS):
        scan = tmp_path / "cases" / "BraTS20_Training_001" / f"BraTS20_Training_001_{name}.nii.gz"
        scan.rename(inputs / f"case_{channel:04d}.nii.gz")
    program = str(Path(sys.executable).with_name("nnUNetv2_predict_from_modelfolder"))
    command = [program, "-i", str(inputs), "-o", str(out), "-m", str(given), "-f", "0", "-device", "cpu"]
    subprocess.run([*command, "-npp", "1", "-nps", "1"], check=True)
    label = np.asarray(nib.nifti1.load(out / "case.nii.gz").dataobj).T
    with np.load(given / "logits.npz") as came:
        box = tuple(slice(low, high) for low, high in came["box"])
    assert (((label[box] > 0)[::2, ::2, ::2]) == edges).mean() > 0.99


class Code:
    def __reduce__(self) -> Any:
        return print, ("run",)


def test_code_in_a_checkpoint_is_not_run(results: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = results("plain")
    torch.save({"network_weights": Code()}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(InputError, match="tensors and numbers"):
        bring(folder, "0", "checkpoint_final.pth", GLI_2021_TASK)
    assert "run" not in capsys.readouterr().out


ARCHITECTURE = ("configurations", "3d_fullres", "architecture")
KWARGS = (*ARCHITECTURE, "arch_kwargs")


@pytest.mark.parametrize(
    ("file", "place", "value", "said"),
    [
        ("plans.json", (*ARCHITECTURE, "network_class_name"), "a.b.ResidualUNet", "found ResidualUNet"),
        ("plans.json", (*KWARGS, "kernel_sizes"), [[1, 3, 3], [3] * 3, [3] * 3], "kernel_sizes"),
        ("plans.json", (*KWARGS, "strides"), [[1] * 3, [1, 2, 2], [2] * 3], "strides"),
        ("plans.json", (*KWARGS, "n_conv_per_stage"), [2, 2, 3], "wanted the network of its plans"),
        ("plans.json", (*KWARGS, "squeeze_excitation"), True, "squeeze_excitation"),
        ("plans.json", ("configurations", "3d_fullres", "spacing"), [2.0, 1.0, 1.0], "resampling"),
        ("plans.json", ("configurations", "3d_fullres", "normalization_schemes"), ["CTNormalization"], "CTNormal"),
        ("plans.json", ("transpose_forward",), [1, 0, 2], "transpose_forward"),
        ("dataset.json", ("regions_class_order",), None, "softmax and argmax are not brought"),
        ("dataset.json", ("regions_class_order",), [1, 2, 3], "paints each region"),
        ("dataset.json", ("channel_names", "0"), "CT", "channel_names"),
        ("dataset.json", ("labels", "enhancing tumor"), [2, 3], "does not say what its labels mean"),
    ],
)
def test_what_ours_cannot_say_is_refused_by_name(
    results: Callable[[str], Path], file: str, place: Sequence[str], value: object, said: str
) -> None:
    folder = results("plain")
    whole = content = json.loads((folder / file).read_text())
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value
    (folder / file).write_text(json.dumps(whole))
    with pytest.raises(InputError, match=said):
        bring(folder, "0", "checkpoint_final.pth", GLI_2021_TASK)


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_logits_of_a_real_case_are_nnunets_own(
    kind: str,
    real_cases: Path,
    brought: Callable[[str | Path], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("nnunetv2", reason="nnunetv2 isn't installed (it is in .venv-bench)")
    case = find_cases(real_cases).cases[0]
    scans = np.stack([np.asarray(nib.nifti1.load(case.files[name]).dataobj).T for name in SCANS]).astype(np.int16)
    np.save(tmp_path / "scans.npy", scans)
    root = str(Path(__file__).parents[3])
    command = [sys.executable, str(PEER), kind, str(tmp_path / kind), str(tmp_path / "scans.npy")]
    subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": root}, check=True)
    checkpoint = brought(tmp_path / kind)
    write_case(tmp_path / "cases", scans)
    compare(predict_logits(checkpoint, tmp_path / "cases", monkeypatch), tmp_path / kind / "logits.npz")
