"""A bundle that MONAI runs without our code, and whose labels are ours."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from models import Execution, UNetConfig, build_unet, sliding_window_probabilities
from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.exchange.description import describe_network
from ray_jobs.exchange.giving import give
from ray_jobs.exchange.monai_bundle import (
    CARD,
    FILE,
    INFERENCE,
    METADATA,
    VERSIONS,
    WindowProbabilities,
    _keep_components,
    describe_inference,
)
from ray_jobs.exchange.plain_network import FinestLogits, open_plain
from storage import MODALITIES, Case, InputError, find_cases
from storage.store.objects import Objects

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture(scope="module")
def bundle(checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    assert give("monai", find_checkpoint(checkpoint), Objects(folder)) == [FILE, INFERENCE, METADATA, CARD]
    return folder


def turned(image: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    return image.as_reoriented(ornt_transform(io_orientation(image.affine), axcodes2ornt(axes)))


def test_monai_runs_it_and_writes_our_labels(
    bundle: Path, tmp_path: Path, phantom_source: Path, label_ourselves: Callable[[Case], NDArray[np.uint8]]
) -> None:
    case = find_cases(phantom_source).cases[0]
    files = {}
    for name in MODALITIES:  # as no BraTS file lies
        files[name] = tmp_path / f"{name}.nii.gz"
        nib.nifti1.save(turned(nib.nifti1.load(case.files[name]), "SRA"), files[name])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", INFERENCE]
    command += ["--images", str([str(path) for path in files.values()]), "--output_dir", str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "out").iterdir()
    theirs = nib.nifti1.load(written)
    first = nib.nifti1.load(files[MODALITIES[0]])
    assert theirs.shape == first.shape and np.allclose(theirs.affine, first.affine)
    labels = np.asarray(turned(theirs, "LPS").dataobj).T
    ours = label_ourselves(dataclasses.replace(case, files=files))
    assert set(np.unique(ours)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(labels, ours)


def test_a_component_of_just_the_smallest_size_is_kept() -> None:
    skimage = pytest.importorskip("skimage.measure")
    meta_tensor = pytest.importorskip("monai.data").MetaTensor
    mask = np.zeros((1, 6, 6, 6), np.float32)
    mask[0, 0, :3, :4] = 1  # twelve voxels of 8 mm3
    mask[0, 4, :3, :4] = 1
    mask[0, 4, 0, 0] = 0
    keep = eval(_keep_components(96.0)[1:], {"np": np, "torch": torch, "label": skimage.label})
    kept = keep(meta_tensor(torch.from_numpy(mask), affine=np.diag([2.0, 2.0, 2.0, 1.0])))
    assert kept.shape == mask.shape and kept.sum() == 12 and kept[0, 0].sum() == 12


def test_the_script_averages_mirror_images(bundle: Path, checkpoint: str) -> None:
    network = open_plain(find_checkpoint(checkpoint))
    image = torch.randn(1, 4, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        mirrored = WindowProbabilities(network, 3, mirror=True)(image)
        again = WindowProbabilities(network, 3, mirror=True)(image.flip([2, 4])).flip([2, 4])
        plain = WindowProbabilities(network, 3, mirror=False)(image)
        turned = torch.sigmoid(network(image.transpose(2, 4))).transpose(2, 4)
    torch.testing.assert_close(mirrored, again)
    torch.testing.assert_close(plain, turned)
    assert (mirrored - plain).abs().max() > 1e-4


def test_slices_go_through_a_2d_network(checkpoint: str) -> None:
    from monai.bundle import ConfigParser

    torch.manual_seed(0)
    network = FinestLogits(build_unet(UNetConfig(dimensions=2, widths=(4, 8)), Execution(channels_last=False))).eval()
    description = describe_network(find_checkpoint(checkpoint))
    description["window"] |= {"sides": [8, 12], "overlap": 0.25}  # y x
    inferer = ConfigParser(describe_inference(description)).get_parsed_content("inferer")
    image_MDHW = torch.randn(4, 5, 20, 18)
    with torch.inference_mode():
        theirs = inferer(image_MDHW.permute(0, 3, 2, 1)[None], WindowProbabilities(network, 2, mirror=False))[0]
        ours_RDHW = sliding_window_probabilities(network, image_MDHW, window=(8, 12), overlap=0.25)
    torch.testing.assert_close(theirs.permute(0, 3, 2, 1), ours_RDHW, rtol=0, atol=1e-5)


def test_metadata_names_versions_and_regions(bundle: Path) -> None:
    metadata = json.loads((bundle / METADATA).read_text())
    assert {name: version(name) for name in VERSIONS} == VERSIONS
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {"0": "whole tumour", "1": "tumour core", "2": "enhancing tumour"}
    assert metadata["brats_stream"]["scans"] == list(MODALITIES)


def test_what_its_transforms_cannot_say_is_refused(checkpoint: str, tmp_path: Path) -> None:
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    config["validation"]["whole"] = True
    other = tmp_path / "whole"
    other.mkdir()
    for file in Path(checkpoint).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="whole images at once"):
        give("monai", find_checkpoint(str(other)), Objects(tmp_path / "out", create=True))
    assert not [*(tmp_path / "out").iterdir()]
