"""Memory is counted as tensors come and go; the table says what is predicted."""

import gc
from dataclasses import replace

import pytest
import torch

from models import PYTORCH3DUNET_LOSS, UNET_PRESETS, LossConfig, UNetConfig, memory, number_labels
from models.memory import LiveBytes, count_step_bytes, find_peak, predict_peak
from models.memory_table import PEAKS
from models.precision import BFLOAT16, FLOAT32

KIB = 1024


def test_what_lives_together_is_counted_and_views_are_not() -> None:
    with LiveBytes() as live:
        first = torch.zeros(KIB, dtype=torch.uint8)
        view = first[:10].add_(1)
        second = torch.zeros(2 * KIB, dtype=torch.uint8)
        assert (live.now, live.peak) == (3 * KIB, 3 * KIB)
        del first
        assert live.now == 3 * KIB  # the view still holds it
        del view, second
        gc.collect()
        assert (live.now, live.peak) == (0, 3 * KIB)
        torch.zeros(KIB, dtype=torch.uint8)
    assert live.peak == 3 * KIB


def test_a_convolution_on_a_gpu_is_allowed_as_much_as_its_operands_occupy() -> None:
    image, kernel = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 3, 3)
    peaks = {}
    for workspace in (False, True):
        with LiveBytes(workspace=workspace) as live:
            torch.nn.functional.conv2d(image, kernel, padding=1)
        peaks[workspace] = live.peak
    assert peaks[True] - peaks[False] == image.nbytes + kernel.nbytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "bits", "recompute"),
    [("nnunet", 16, False), ("nnunet", 16, True), ("tiny2d", 32, False), ("unet3d", 16, False), ("strided", 32, True)],
)
def test_the_table_says_what_is_predicted(name: str, bits: int, *, recompute: bool) -> None:
    """Of each kind of block, and of each way to compute it, one."""
    precision = BFLOAT16 if bits == 16 else FLOAT32
    predicted = predict_peak(UNET_PRESETS[name], LossConfig(), precision, recompute=recompute)
    known, anew = PEAKS[name, bits, recompute], "python -m benchmarks memory --table prints all rows anew"
    if bits == 16 and torch.backends.cpu.get_cpu_capability() != "AVX512":
        # There oneDNN does not convolve in 16 bits, and torch's fake convolutions lay their results out otherwise.
        assert predicted.weights == known.weights and predicted.per_voxel == pytest.approx(known.per_voxel, rel=0.03)
    else:
        assert known == predicted, anew


def test_every_network_is_in_the_table() -> None:
    assert set(PEAKS) == {(name, bits, how) for name in UNET_PRESETS for bits in (16, 32) for how in (False, True)}


def test_what_is_not_in_the_table_is_predicted_now(monkeypatch: pytest.MonkeyPatch) -> None:
    nnunet, loss = UNET_PRESETS["nnunet"], LossConfig()
    assert find_peak(nnunet, loss, FLOAT32, recompute=True) is PEAKS["nnunet", 32, True]
    monkeypatch.setattr(memory, "predict_peak", lambda *asked, **how: (asked, how))
    for network, other in ((replace(nnunet, modalities=2), loss), (nnunet, PYTORCH3DUNET_LOSS)):
        asked = (network, other, BFLOAT16)
        assert find_peak(*asked, recompute=True) == (asked, {"recompute": True})


@pytest.mark.slow
def test_a_step_grows_by_what_each_patch_takes() -> None:
    small = UNetConfig(dimensions=2, widths=(4, 8), deep_supervision=0)

    def count(batch: int, *, on_gpu: bool = False) -> int:
        return count_step_bytes(small, LossConfig(), FLOAT32, sides=(64, 64), batch=batch, on_gpu=on_gpu)

    patch = count(3) - count(2)
    assert patch == pytest.approx(count(4) - count(3), rel=1e-4)
    assert patch > 64 * 64 * 4 * (4 + 4 + 8 / 4)  # the image and the features of two levels
    assert count(2, on_gpu=True) > count(2)


@pytest.mark.slow
def test_a_head_of_labels_is_counted_with_its_loss() -> None:
    labels = number_labels(((2, 6, 5, 3), (6, 5, 3), (3,), (6,), (5,), (2,)))
    small = UNetConfig(dimensions=2, widths=(4, 8), head="labels", regions=6)
    heads = {labels: 4, None: 6}  # as many labels as differ, or as many as regions
    voxels = 64 * 64
    counted = {
        outputs: count_step_bytes(
            replace(small, region_labels=each), LossConfig(voxel="ce"), FLOAT32, sides=(64, 64), batch=1, on_gpu=False
        )
        for each, outputs in heads.items()
    }
    assert counted[6] > counted[4] > voxels * 4 * (4 + 4 + 4)
