"""Whole cases: all of them, in order, normalised as training's patches are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dali_pipelines import CaseReadError, VolumeLoader
from storage import CorruptStoreError, InputError, region_masks
from storage.labels.tasks import GLIOMA_REGIONS


def test_cases_come_whole_and_normalised(make_cache: Callable[..., Any]) -> None:
    cache = make_cache(3)
    cache.cases["case_1"] = type(cache.cases["case_1"])(cache.cases["case_1"].image_MDHW[:, 3:, :, 5:], None)
    loader = VolumeLoader(cache, ["case_2", "case_0", "case_1"])
    assert len(loader) == 3
    for _ in range(2):  # every iteration starts afresh
        volumes = list(loader)
        assert [volume.case_id for volume in volumes] == ["case_2", "case_0", "case_1"]
        for volume in volumes:
            image, label = cache.cases[volume.case_id]
            brain = (image != 0).any(axis=0)
            result = volume.image_MDHW.numpy()
            assert volume.image_MDHW.dtype == torch.float32
            assert result.shape == image.shape
            np.testing.assert_allclose(result[:, brain].mean(axis=1), 0, atol=1e-4)
            np.testing.assert_allclose(result[:, brain].std(axis=1), 1, atol=1e-4)
            assert not result[:, ~brain].any()
            if label is None:
                assert volume.regions_RDHW is None
            else:
                np.testing.assert_array_equal(volume.regions_RDHW, region_masks(label, GLIOMA_REGIONS))


def test_the_range_can_be_the_scale(make_cache: Callable[..., Any]) -> None:
    volume = next(iter(VolumeLoader(make_cache(1), ["case_0"], normalisation="minmax")))
    assert volume.image_MDHW.min() == 0
    assert volume.image_MDHW.max() == pytest.approx(1)


def test_an_unreadable_case_is_named(make_cache: Callable[..., Any]) -> None:
    cache = make_cache(3)
    cache.broken = {"case_1"}
    volumes = iter(VolumeLoader(cache, ["case_0", "case_1", "case_2"]))
    assert next(volumes).case_id == "case_0"
    with pytest.raises(CaseReadError, match="case case_1 could not be read: OSError"):
        next(volumes)


def test_a_full_disk_is_not_a_bad_case(make_cache: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each epoch would be scored over other cases."""
    cache = make_cache(2)

    def refuse(error: Exception) -> None:
        def read_case(case_id: str) -> None:
            raise error

        monkeypatch.setattr(cache, "read_case", read_case)

    loader = VolumeLoader(cache, ["case_0", "case_1"], on_bad_case="skip")
    refuse(InputError("the disk is full"))
    with pytest.raises(CaseReadError, match="the disk is full"):
        list(loader)
    refuse(CorruptStoreError("a chunk is damaged"))
    assert list(loader) == []
    assert set(loader.bad_cases) == {"case_0", "case_1"}


def test_no_cases_are_no_volumes(make_cache: Callable[..., Any]) -> None:
    assert list(VolumeLoader(make_cache(1), [])) == []
