"""A network as ONNX: the same logits at any sides, and a file from which scans become labels without our code."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy import ndimage

from models import Execution, UNetConfig, build_unet, number_labels
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.exchange.description import describe_network
from ray_jobs.exchange.giving import give
from ray_jobs.exchange.onnx_file import FILE, OPSET, encode
from ray_jobs.exchange.plain_network import FinestLogits, open_plain
from storage import Case, InputError, find_cases
from storage.store.objects import Objects

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is a development dependency")
pytestmark = [pytest.mark.slow, pytest.mark.processes]  # git says the commit


@pytest.fixture(scope="module")
def given(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    assert give("onnx", find_checkpoint(checkpoint), Objects(folder)) == [FILE, "model_card.md"]
    return folder


@pytest.mark.parametrize("shape", [(1, 4, 16, 16, 16), (3, 4, 8, 24, 18)])
def test_logits_are_torchs_at_other_sides(given: Path, checkpoint: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    session = onnxruntime.InferenceSession(given / FILE)
    (logits,) = session.run(None, {"image": image})
    with torch.inference_mode():
        wanted = open_plain(find_checkpoint(checkpoint))(torch.from_numpy(image))
    assert np.abs(logits - wanted.numpy()).max() < 1e-4


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(dimensions=2, widths=(4, 8)),
        UNetConfig(widths=(4, 8), head="labels", region_labels=number_labels(((1, 2, 3), (1, 3), (2,)))),
        UNetConfig(widths=(4, 8), block="residual"),
        UNetConfig(widths=(4, 8), stem_stride=2),
        UNetConfig(widths=(4, 8), block="pre_norm", norm_groups=2, down="max_pool", up="nearest"),
    ],
    ids=["slices", "labels", "residual", "strided", "pre_norm"],
)
def test_other_networks_are_torchs_too(config: UNetConfig) -> None:
    torch.manual_seed(0)
    network = FinestLogits(build_unet(config, Execution(channels_last=False))).eval()
    image = torch.randn(1, 4, *(16, 24, 16)[: config.dimensions])
    content = encode(network, config, {"scans": []})[FILE]
    (logits,) = onnxruntime.InferenceSession(content).run(None, {"image": image.numpy()})
    with torch.inference_mode():
        assert np.abs(logits - network(image).numpy()).max() < 1e-4


def test_without_what_writes_it_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = UNetConfig(widths=(4, 8))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match="pip install"):
        encode(FinestLogits(build_unet(config)), config, {})


def test_what_torch_cannot_write_is_refused() -> None:
    config = UNetConfig(widths=(4, 8), block="residual", stem_stride=2)
    with pytest.raises(InputError, match="strided stem"):
        encode(FinestLogits(build_unet(config)), config, {})


def test_opset_and_axes_are_as_stated(given: Path) -> None:
    import onnx

    model = onnx.load(given / FILE)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    (image,) = model.graph.input
    assert [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim] == ["batch", 4, *"zyx"]
    assert str(Path(__file__).parents[3]) not in (given / FILE).read_bytes().decode("latin-1")


def test_the_file_alone_leads_from_scans_to_labels(
    given: Path, phantom_source: Path, label_ourselves: Callable[[Case], NDArray[np.uint8]]
) -> None:
    case = find_cases(phantom_source).cases[0]
    labels, ours = read_and_segment(given / FILE, case), label_ourselves(case)
    assert set(np.unique(ours)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(labels, ours)


def test_the_card_says_training_scores_and_code(given: Path, checkpoint: str) -> None:
    card = (given / "model_card.md").read_text()
    record = json.loads((Path(checkpoint) / "record.json").read_text())
    assert f"{record['metrics']['iou_mean']:.3f}" in card and f"after {record['epoch']} epochs" in card
    assert json.loads((Path(checkpoint) / "config.json").read_text())["store_digest"] in card
    assert "flair, t1, t1ce, t2" in card and "400 mm³" in card and "commit" in card


def read_and_segment(model: Path, case: Case) -> NDArray[np.uint8]:
    """What any program can do that knows ONNX, NumPy and what the file says; 3-D windows, regions that nest."""
    session = onnxruntime.InferenceSession(model)
    told = {name: json.loads(value) for name, value in session.get_modelmeta().custom_metadata_map.items()}
    scans = [nib.nifti1.load(case.files[name]) for name in told["scans"]]
    turn = ornt_transform(io_orientation(scans[0].affine), axcodes2ornt(told["orientation"][:3]))
    image = np.stack([apply_orientation(np.asarray(scan.dataobj, float), turn).T for scan in scans])
    brain = (image != 0).any(axis=0)
    values = image[:, brain]
    normal = np.zeros(image.shape, np.float32)
    normal[:, brain] = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    box = tuple(slice(side.min(), side.max() + 1) for side in np.nonzero(brain))
    normal, sides = normal[(slice(None), *box)], told["window"]["sides"]
    weights = np.ones(())
    for side in sides:
        weights = weights[..., None] * np.exp(-(((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) / 2)
    weights = weights.clip(max(weights.min(), 0.001))
    step = [max(int(side * (1 - told["window"]["overlap"])), 1) for side in sides]
    starts = [[*range(0, n - s, by), n - s] for n, s, by in zip(normal.shape[1:], sides, step, strict=True)]
    sums, total = np.zeros((len(told["regions"]), *normal.shape[1:])), np.zeros(normal.shape[1:])
    for start in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3):
        window = tuple(slice(at, at + side) for at, side in zip(start, sides, strict=True))
        (logits,) = session.run(None, {"image": normal[None][(slice(None), slice(None), *window)]})
        sums[(slice(None), *window)] += weights / (1 + np.exp(-logits[0]))
        total[window] += weights
    found = np.zeros((len(sums), *brain.shape))
    found[(slice(None), *box)] = sums / total
    found[:, ~brain] = 0
    regions, decision = {region["name"]: region for region in told["regions"]}, told["decision"]
    masks = {name: found[i] >= decision["thresholds"][name] for i, name in enumerate(regions)}
    for name in reversed(told["painted"]):
        if (around := regions[name]["inside"]) is not None:
            masks[around] |= masks[name]
    labels, voxel_mm3 = np.zeros(brain.shape, np.uint8), abs(np.linalg.det(scans[0].affine))
    for name in told["painted"]:
        inside = regions[name]["inside"]
        mask = masks[name] & (True if inside is None else masks[inside])
        numbers, _ = ndimage.label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.ravel()) * voxel_mm3
        sizes[0] = 0
        kept = sizes >= max(decision["smallest_mm3"][name], 1)
        if decision["largest_tumour_only"] and name == told["painted"][0]:
            kept &= np.arange(len(sizes)) == sizes.argmax()
        masks[name] = kept[numbers] & (sizes[kept].sum() >= decision["empty_below_mm3"][name])
        labels[masks[name]] = regions[name]["value"]
    return labels


def test_a_network_of_other_people_is_not_given(checkpoint: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "imported"))
    config = json.loads((copy / "config.json").read_text())
    config["model"] |= {"network": "monai.networks.nets:SegResNet", "arguments": []}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"wanted one of our U-Nets in .*imported, it has monai\.networks"):
        describe_network(find_checkpoint(str(copy)))
