"""Scans whose background is not 0, and labels that are nearly whole numbers: mended, said, or refused."""

from typing import Any

import numpy as np
import pytest

from storage.scans.nifti_header import NiftiError
from storage.scans.voxel_values import as_labels, narrowest, without_background, without_nan

RANDOM = np.random.default_rng(0)


def head(shape: tuple[int, ...] = (20, 22, 18)) -> tuple[Any, Any]:
    """Intensities of a brain, 1 to 900, with 0 around it, and where it is."""
    axes = [np.linspace(-1, 1, side) if side > 1 else np.zeros(1) for side in shape]
    brain = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < 0.85
    return np.where(brain, RANDOM.integers(1, 900, shape), 0).astype(np.int16), brain


def zscored(scan: Any, brain: Any) -> Any:
    return ((scan - scan[brain].mean()) / scan[brain].std()).astype(np.float32)


@pytest.mark.parametrize(
    "change",
    [
        lambda scan, brain: np.where(brain, scan, -1024).astype(np.int16),
        lambda scan, brain: np.where(brain, scan, 4095).astype(np.int16),
        lambda scan, brain: np.where(brain, scan, -32768).astype(np.int32),
        lambda scan, brain: scan.astype(np.uint16) + 10,
        zscored,
        lambda scan, brain: zscored(scan, brain).astype(np.float64),
        lambda scan, brain: (scan / 450 - 1).astype(np.float32),
        # Resampled after it was normalised: constant but for a float's last bits.
        lambda scan, brain: zscored(scan, brain) * (1 + RANDOM.uniform(-1e-7, 1e-7, scan.shape)).astype(np.float32),
    ],
)
@pytest.mark.parametrize("shape", [(20, 22, 18), (20, 22, 1), (30, 30, 4)])
def test_a_background_that_is_not_0_is_stored_as_0(change: Any, shape: tuple[int, ...]) -> None:
    scan, brain = head(shape)
    changed = change(scan, brain)
    stored, notes = without_background(narrowest(changed))
    assert not stored[~brain].any()
    assert (stored[brain] == changed[brain]).all()
    ((kind, detail),) = notes
    assert kind == "background stored as 0"
    assert float(detail.split(",")[0]) == pytest.approx(float(changed[0, 0, 0]), rel=1e-5)


def test_a_scan_cropped_to_its_brain_still_shows_its_background() -> None:
    scan, brain = head((40, 40, 40))
    low, high = (np.flatnonzero(brain.any(axis=(1, 2)))[index] for index in (0, -1))
    box = (slice(low, high + 1),) * 3
    stored, _ = without_background(np.where(brain, scan, -1024)[box])
    assert (stored == scan[box]).all()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_background_of_0_stays_and_nothing_is_said(dtype: Any) -> None:
    scan, _ = head()
    scan = scan.astype(dtype)
    stored, notes = without_background(scan)
    assert stored is scan
    assert notes == ()


def test_padding_around_zeros_is_background_with_them() -> None:
    scan, brain = head()
    padded = np.pad(scan, 3, constant_values=-1024)
    stored, notes = without_background(padded)
    assert (stored == np.pad(scan, 3)).all()
    assert f"{np.count_nonzero(~brain)} voxels of 0 beside it" in notes[0].detail


def test_a_normalised_scan_that_was_padded_with_0_has_two_backgrounds() -> None:
    scan, brain = head()
    normalised = zscored(scan, brain)
    stored, notes = without_background(np.pad(normalised, 5))
    assert (stored == np.pad(np.where(brain, normalised, 0), 5)).all()
    assert notes[0].detail.startswith(f"{normalised[0, 0, 0]:g}, ")


def test_where_no_value_is_common_along_the_edges_the_scan_stays_and_it_is_said() -> None:
    noisy = RANDOM.integers(0, 40, (20, 22, 18)).astype(np.int16)
    stored, notes = without_background(noisy)
    assert stored is noisy
    assert [note.kind for note in notes] == ["no background found, 0 is taken for it"]


def test_nan_around_the_head_is_background_and_within_it_is_not() -> None:
    scan, brain = head()
    around = np.where(brain, scan, np.nan)
    stored, notes = without_nan(around)
    assert (stored == scan).all()
    assert notes[0].detail == f"{np.count_nonzero(~brain)} voxels"
    within = scan.astype(np.float32)
    within[10, 11, 9] = np.nan
    assert without_nan(within)[1] == ()
    with pytest.raises(NiftiError, match="1 voxels are NaN"):
        narrowest(without_nan(within)[0])
    with pytest.raises(NiftiError, match="NaN"):
        narrowest(without_nan(np.full((4, 4, 4), np.nan))[0])


@pytest.mark.parametrize(
    ("values", "step", "off"),
    [
        ([0, 0.9999, 1.9998, 3.9996], 0.0, "0.0004"),
        ([0, 1.00002, 2.00003, 4], 4 / 65535, "3e-05"),
        ([0, 0.996078, 1.992157, 4], 4 / 255, "0.0078"),
        ([0, 1.0196, 2.0, 10.0], 10 / 255, "0.02"),  # half a step of a tenfold label in 8 bits
    ],
)
def test_labels_that_are_nearly_whole_are_rounded_and_it_is_said(values: Any, step: float, off: str) -> None:
    labels, ((kind, detail),) = as_labels(np.array(values), step=step)
    assert labels.tolist() == [round(value) for value in values]
    assert kind == "labels rounded to whole numbers"
    assert detail.startswith("by up to ")
    assert float(detail.split()[-1]) == pytest.approx(float(off), rel=0.1)


@pytest.mark.parametrize(
    ("values", "step", "words", "remedy"),
    [
        ([0, 1.02], 0.0, "1.02 is not a whole number", "right segmentation"),
        ([0, 0.6, 1], 0.9, "0.6 is not a whole number", "right segmentation"),  # a step as wide as a label says nothing
        (np.arange(40) + 0.005, 0.0, "40 different values", "right segmentation"),
        ([0, -1, 2], 0.0, "from -1 to 2", "write 0 where it has -1"),
        ([0, 1000, 2], 0.0, "to 1000", "write 0 where it has 1000"),
    ],
)
def test_what_is_no_label_is_refused_with_a_remedy(values: Any, step: float, words: str, remedy: str) -> None:
    with pytest.raises(NiftiError, match=words) as caught:
        as_labels(np.asarray(values), step=step)
    assert remedy in caught.value.remedy
