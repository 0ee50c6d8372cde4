"""Each example runs on a store that one of them has made, and does what it says."""

import ast
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import CohortStore, open_store

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "examples").glob("*.py"))


def example(name: str) -> Any:
    """The file as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    path = str(tmp_path_factory.mktemp("store") / "cohort.zarr")
    made: CohortStore = example("conversion").main(["--store", path, "--source", str(source)])
    assert open_store(path).case_ids == made.case_ids == tuple(f"BraTS20_Training_00{n}" for n in range(1, 5))
    return made


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lightning, without torchvision: that built for CUDA fails beside a torch built without, and torchmetrics asks."""
    pytest.importorskip("lightning_utilities", reason="Lightning isn't installed (pip install .[dev])")

    def version(name: str) -> str:
        return importlib.metadata.version(name if name != "torchvision" else "is not here")

    monkeypatch.setattr("lightning_utilities.core.imports._version", version)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    return pytest.importorskip("pytorch_lightning", reason="Lightning isn't installed (pip install .[dev])")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_short_and_shown(file: Path) -> None:
    text = file.read_text()
    assert text.count("\n") <= 60
    assert f"`python examples/{file.name} " in (ast.get_docstring(ast.parse(text)) or "")
    assert f"](../examples/{file.name})" in (ROOT / "docs" / "parts.md").read_text()
    assert f'example("{file.stem}")' in Path(__file__).read_text()


@pytest.mark.slow
def test_conversion_makes_a_cohort_where_none_is_given(tmp_path: Path) -> None:
    assert len(example("conversion").main(["--store", str(tmp_path / "cohort.zarr")]).case_ids) == 4


def test_conversion_leaves_a_bad_case_out_and_goes_on(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(source.glob("BraTS20*"))[:2]
    folder = tmp_path / "source" / first.name
    folder.mkdir(parents=True)
    for file in first.iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[: 2000 if "t2" in file.name else None])
    (folder.parent / second.name).symlink_to(second)
    arguments = ["--store", str(tmp_path / "cohort.zarr"), "--source", str(folder.parent)]
    assert example("conversion").main(arguments).case_ids == (second.name,)
    bad, good, _ = capsys.readouterr().out.splitlines()
    assert bad.startswith(f"left out {first.name} (") and good.startswith(f"{second.name}: (")
    example("conversion").main(arguments)
    assert len(capsys.readouterr().out.splitlines()) == 2  # what is stored is not converted again


def test_zarr_alone_reads_what_was_stored(store: CohortStore, capsys: pytest.CaptureFixture[str]) -> None:
    reading, info = example("read_with_zarr"), store.infos()[1]
    normalised, label, record = reading.read_case(store.uri, info.case_id)
    image_MDHW, label_DHW = store.read_case(info.case_id)
    assert label_DHW is not None
    brain = (image_MDHW != 0).any(axis=0)
    assert np.abs(normalised[:, brain].mean(axis=1)).max() < 1e-3
    assert np.abs(normalised[:, brain].std(axis=1) - 1).max() < 1e-3
    assert not normalised[:, ~brain].any()
    whole = reading.whole_grid(label, record)
    (z, _), (y, _), (x, _) = info.bbox
    assert whole.shape == info.original_shape and whole.sum() == label_DHW.sum()
    assert whole[z + 10, y + 11, x + 12] == label_DHW[10, 11, 12]
    reading.main(store.uri)
    said = capsys.readouterr().out
    for case in store.infos():
        assert case.case_id in said
        assert all(f"{name}: {voxels * 64e-6:.4f} l" in said for name, voxels in case.region_voxels.items())


@pytest.mark.parametrize("name", ["read_with_zarr", "read_with_xarray"])
def test_readers_of_others_need_nothing_of_ours(name: str) -> None:
    tree = ast.parse((ROOT / "examples" / f"{name}.py").read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names <= {"sys", "typing", "numpy", "numpy.typing", "zarr", "xarray"}


def test_xarray_knows_where_voxels_lie(store: CohortStore) -> None:
    pytest.importorskip("xarray", reason="xarray isn't installed (pip install .[dev])")
    case, info = example("read_with_xarray").main(store.uri), store.infos()[0]
    image_MDHW, label_DHW = store.read_case(info.case_id)
    assert np.array_equal(case.image, image_MDHW) and np.array_equal(case.label, label_DHW)
    (z, _), (y, _), (x, _) = info.bbox
    place = {"z": (z + 7) * 4.0, "y": (y + 8) * 4.0, "x": (x + 9) * 4.0, "modality": "t1ce"}
    assert int(case.image.sel(place)) == image_MDHW[info.modalities.index("t1ce"), 7, 8, 9]


@pytest.mark.slow
@pytest.mark.processes  # MONAI asks uname when it is imported
def test_monai_gets_what_it_would_load_itself(source: Path, store: CohortStore) -> None:
    transforms = pytest.importorskip("monai.transforms", reason="monai isn't installed (pip install .[dev])")
    reading, info = example("read_with_monai"), store.infos()[2]
    load = transforms.Compose(
        [transforms.LoadImage(ensure_channel_first=True), transforms.Orientation("LPS", labels=None)]
    )
    theirs = load(source / info.case_id / f"{info.case_id}_t1.nii.gz")
    ours = reading.LoadCase(store)({"case": info.case_id})["image"][info.modalities.index("t1")]
    (z, _), (y, _), (x, _) = info.bbox
    depth, height, width = info.shape
    assert np.array_equal(ours, theirs[0, x : x + width, y : y + height, z : z + depth])
    assert np.allclose(ours.affine.numpy() @ [5, 6, 7, 1], theirs.affine.numpy() @ [x + 5, y + 6, z + 7, 1])
    batches = reading.main(store.uri)
    assert [batch["image"].shape for batch in batches] == [(4, 4, 32, 32, 32)] * 2
    assert [batch["label"].shape for batch in batches] == [(4, 3, 32, 32, 32)] * 2


@pytest.mark.slow
def test_the_plain_loop_learns(store: CohortStore, capsys: pytest.CaptureFixture[str]) -> None:
    losses = example("plain_loop").main(["--store", store.uri])
    assert len(losses) == 16  # two epochs of batches of two
    assert sum(losses[8:]) < 0.8 * sum(losses[:8])
    assert (
        f"epoch 0: loss {sum(losses[:8]) / 8:.3f}\nepoch 1: loss {sum(losses[8:]) / 8:.3f}\n" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_thresholds_are_those_of_a_network_of_ones_own(store: CohortStore, capsys: pytest.CaptureFixture[str]) -> None:
    best = example("thresholds").main(["--store", store.uri])
    assert best.cases == 4 and best.threshold[0] > 0.5
    said = capsys.readouterr().out
    assert [f"{name}: Dice" in said for name in store.task.region_names] == [True] * 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_lightning_module_trains_on_the_loader(store: CohortStore, lightning: Any) -> None:
    module = example("lightning_module")
    trainer = module.main(store.uri)
    assert (trainer.current_epoch, trainer.global_step) == (2, 8)
    assert isinstance(trainer.model, lightning.LightningModule)
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(trainer.train_dataloader))
