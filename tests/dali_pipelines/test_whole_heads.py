"""Scans that are not skull-stripped: 0 is an intensity like any other, and all that lies outside the scan is air."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from dali_pipelines import AUGMENTATION_PRESETS, AugmentationConfig, PatchLoader, SamplingConfig, VolumeLoader
from storage import TASKS, Frame, normalisation_coefficients

NONE = AUGMENTATION_PRESETS["none"]
SHAPE = (10, 12, 11)
GEOMETRIES = {
    "as stored": NONE,
    "mirror": replace(NONE, mirror_probability=1.0),
    "rotation": replace(NONE, rotation_probability=1.0),
    "zoom": replace(NONE, scale_probability=1.0),
}


@pytest.fixture
def cache(make_cache: Callable[..., Any]) -> Any:
    """A case with zeros in it, and none at its border: far brighter than what is outside, which is 0."""
    made = make_cache(1, SHAPE)
    image, label = made.cases["case_0"]
    noise = np.random.default_rng(0).integers(990, 1010, image.shape, dtype=np.int16)
    noise[:, 3:6, 4:7, 4:7] = 0
    made.cases["case_0"] = type(made.cases["case_0"])(noise, label)
    made.task = TASKS["men-rt"]
    return made


@pytest.mark.parametrize("name", GEOMETRIES)
def test_what_a_patch_has_beyond_the_scan_is_air(name: str, cache: Any) -> None:
    """And not 0, which is the mean: the patch holds the case and far more."""
    sampling = SamplingConfig(patch_shape=(28, 30, 29), global_batch_size=2, patches_per_epoch=4)
    _, offset = normalisation_coefficients(cache.info("case_0"), "zscore")
    assert (np.abs(offset) > 1).all()
    with PatchLoader(cache, ["case_0"], sampling=sampling, augmentation=GEOMETRIES[name]) as loader:
        images = [image for batch in loader for image in batch.image]
    for image_MDHW in images:
        air_MDHW = (image_MDHW - torch.from_numpy(offset).reshape(-1, 1, 1, 1)).abs() < 1e-4
        assert 0.7 < air_MDHW.float().mean() < 1  # an eighteenth is the case, as it is stored
        assert (image_MDHW > 0).any()


def test_training_and_prediction_see_the_same(cache: Any) -> None:
    (volume,) = VolumeLoader(cache, ["case_0"])
    scale, offset = normalisation_coefficients(cache.info("case_0"), "zscore")
    wanted = cache.cases["case_0"].image_MDHW * scale[:, None, None, None] + offset[:, None, None, None]
    np.testing.assert_allclose(volume.image_MDHW, wanted, atol=1e-4)  # zeros too
    np.testing.assert_allclose(volume.image_MDHW.mean(dim=(1, 2, 3)), 0, atol=1e-3)
    assert volume.outside_M == tuple(offset.tolist())
    sampling = SamplingConfig(patch_shape=SHAPE, global_batch_size=1, patches_per_epoch=1)
    with PatchLoader(cache, ["case_0"], sampling=sampling, augmentation=NONE) as loader:
        (batch,) = loader
    assert torch.equal(batch.image[0], volume.image_MDHW)
    assert batch.regions.shape == (1, 1, *SHAPE)


def test_what_a_frame_has_beyond_the_box_is_air(cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = tuple(side + 4 for side in SHAPE)
    monkeypatch.setattr(Frame, "box", lambda *_: ((-2, -2, -2), grid))
    (volume,) = VolumeLoader(cache, ["case_0"])
    for modality, value in zip(volume.image_MDHW, volume.outside_M or (), strict=True):
        assert (modality[:2] == value).all() and (modality[..., -2:] == value).all()


def test_skull_stripped_scans_have_no_air(make_cache: Callable[..., Any], everything: AugmentationConfig) -> None:
    (volume,) = VolumeLoader(make_cache(1), ["case_0"])
    assert volume.outside_M is None
    sampling = SamplingConfig(patch_shape=(40, 40, 40), global_batch_size=1, patches_per_epoch=4)
    turned = replace(everything, **{name: 0.0 for name in vars(everything) if name.endswith("probability")})
    turned = replace(turned, rotation_probability=0.5, scale_probability=0.5)
    with PatchLoader(make_cache(1), ["case_0"], sampling=sampling, augmentation=turned) as loader:
        assert all((batch.image[..., 0] == 0).all() for batch in loader)
