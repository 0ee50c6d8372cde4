from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import sliding_window_probabilities
from models.inference import gaussian_weights


def _blur() -> Callable[[Tensor], Tensor]:
    network = nn.Conv3d(2, 3, 3, padding=1)

    def predict(image: Tensor) -> Tensor:
        return network(image)  # type: ignore[no-any-return]

    return predict


def _reference(predict: Callable[[Tensor], Tensor], image: Tensor, window: tuple[int, int, int], step: int) -> Tensor:
    """Every window added into a whole volume, in the plainest way."""
    weight = gaussian_weights(window)
    total, weights = torch.zeros(3, *image.shape[1:]), torch.zeros(image.shape[1:])
    starts = [sorted({*range(0, side - w, step), side - w}) for side, w in zip(image.shape[1:], window, strict=True)]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                cut = (slice(z, z + window[0]), slice(y, y + window[1]), slice(x, x + window[2]))
                with torch.no_grad():
                    total[(slice(None), *cut)] += torch.sigmoid(predict(image[(slice(None), *cut)][None]))[0] * weight
                weights[cut] += weight
    return total / weights


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_windows_add_up_to_the_plain_sum_for_any_batch_size(batch_size: int) -> None:
    image, predict = torch.randn(2, 13, 9, 11), _blur()
    result = sliding_window_probabilities(predict, image, window=(4, 4, 4), batch_size=batch_size)
    torch.testing.assert_close(result, _reference(predict, image, (4, 4, 4), 2))
    assert (result.dtype, result.is_contiguous()) == (torch.float32, True)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_any_overlap(overlap: float) -> None:
    image, predict = torch.randn(2, 10, 8, 9), _blur()
    result = sliding_window_probabilities(predict, image, window=(4, 4, 4), overlap=overlap)
    torch.testing.assert_close(result, _reference(predict, image, (4, 4, 4), int(4 * (1 - overlap))))


def test_weighting_leaves_a_pointwise_network_unchanged() -> None:
    image = torch.randn(1, 9, 10, 11)
    result = sliding_window_probabilities(lambda x: 3 * x, image, window=(4, 5, 6), overlap=0.3, mirror_axes=(0, 1, 2))
    torch.testing.assert_close(result, torch.sigmoid(3 * image))


def test_a_volume_smaller_than_the_window_is_padded_and_cut_back() -> None:
    shapes = []

    def predict(image: Tensor) -> Tensor:
        shapes.append(tuple(image.shape[1:]))
        return 2 * image

    image = torch.randn(1, 3, 9, 4)
    result = sliding_window_probabilities(predict, image, window=(8, 8, 8))
    assert set(shapes) == {(1, 8, 8, 8)}
    torch.testing.assert_close(result, torch.sigmoid(2 * image))


def test_what_lies_outside_a_volume_can_be_told() -> None:
    image, predict, seen = torch.randn(2, 3, 6, 5), _blur(), []

    def look(window: Tensor) -> Tensor:
        seen.append(window.clone())
        return predict(window)

    result = sliding_window_probabilities(look, image, window=(4, 4, 8), outside=(-1.5, 2.5))
    assert result.shape == (3, 3, 6, 5)
    padded = torch.tensor([-1.5, 2.5]).reshape(2, 1, 1, 1).repeat(1, 4, 6, 8)
    padded[:, :3, :, 1:6] = image
    assert torch.equal(seen[0][0], padded[:, :, :4])
    wanted = sliding_window_probabilities(predict, padded, window=(4, 4, 8))
    torch.testing.assert_close(result, wanted[:, :3, :, 1:6])


def test_the_whole_volume_at_once() -> None:
    image, predict = torch.randn(2, 5, 6, 7), _blur()
    with torch.no_grad():
        wanted = torch.sigmoid(predict(image[None]))[0]
    torch.testing.assert_close(sliding_window_probabilities(predict, image, window=None), wanted)


def test_a_2d_network_sees_every_slice() -> None:
    network = nn.Conv2d(2, 3, 3, padding=1)
    image = torch.randn(2, 5, 6, 8)
    result = sliding_window_probabilities(network, image, window=(6, 8), batch_size=2)
    with torch.no_grad():
        wanted = torch.stack([torch.sigmoid(network(image[None, :, z]))[0] for z in range(5)], dim=1)
    torch.testing.assert_close(result, wanted)


def test_mirroring_makes_a_lopsided_network_symmetric() -> None:
    predict = _blur()
    image = torch.randn(2, 6, 6, 6)
    plain = sliding_window_probabilities(predict, image, window=(6, 6, 6))
    mirrored = sliding_window_probabilities(predict, image.flip(3), window=(6, 6, 6)).flip(3)
    both = sliding_window_probabilities(predict, image, window=(6, 6, 6), mirror_axes=(2,))
    assert not torch.allclose(plain, mirrored, atol=1e-2)
    torch.testing.assert_close(both, (plain + mirrored) / 2)


def test_mirroring_three_axes_predicts_eight_times() -> None:
    calls = 0

    def predict(image: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return image

    sliding_window_probabilities(predict, torch.zeros(1, 4, 4, 4), window=(4, 4, 4), mirror_axes=(0, 1, 2))
    assert calls == 8


def test_several_networks_average_their_probabilities() -> None:
    first, second, image = _blur(), _blur(), torch.randn(2, 6, 6, 6)
    single = [sliding_window_probabilities(predict, image, window=(4, 4, 4)) for predict in (first, second)]
    both = sliding_window_probabilities([first, second], image, window=(4, 4, 4))
    torch.testing.assert_close(both, (single[0] + single[1]) / 2)


ELSEWHERE = torch.device("cpu", 0)
"""The CPU by a name that differs from a tensor's own "cpu": predictions take the way they take to a GPU."""


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_predicting_on_another_device_gives_the_same(overlap: float, device: torch.device) -> None:
    image = torch.randn(2, 21, 9, 11)
    network = nn.Conv3d(2, 3, 3, padding=1)
    options = {"window": (4, 4, 4), "overlap": overlap, "batch_size": 3}
    wanted = sliding_window_probabilities(network, image, **options)  # type: ignore[arg-type]
    elsewhere = ELSEWHERE if device.type == "cpu" else device
    came = sliding_window_probabilities(network.to(device), image, device=elsewhere, **options)  # type: ignore[arg-type]
    assert came.device == image.device
    # GPUs convolve float32 with shortened mantissas (TF32) unless told otherwise.
    torch.testing.assert_close(came, wanted, rtol=0, atol=1e-6 if device.type == "cpu" else 2e-3)


def test_memory_elsewhere_does_not_grow_with_the_volumes_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running sums are a slab one window deep; only the result, at home on the image's device, has the full depth."""
    largest = []
    original = torch.zeros
    for depth in (16, 64):
        sizes: list[int] = []

        def zeros(shape: tuple[int, ...], _sizes: list[int] = sizes, **options: Any) -> Tensor:
            tensor = original(shape, **options)
            _sizes.append(tensor.numel())
            return tensor

        monkeypatch.setattr(torch, "zeros", zeros)
        sliding_window_probabilities(lambda x: x, torch.randn(1, depth, 8, 8), window=(4, 4, 4), device=ELSEWHERE)
        monkeypatch.setattr(torch, "zeros", original)
        largest.append(max(sizes))
    assert largest == [4 * 8 * 8] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (4, 4, 4), "overlap": 1.0}, "0 <= overlap < 1"),
        ({"window": (4,)}, "two or three positive sides"),
        ({"window": (4, 0, 4)}, "two or three positive sides"),
        ({"window": (4, 4), "mirror_axes": (0,)}, r"different ones of \[1, 2\]"),
        ({"window": (4, 4, 4), "mirror_axes": (1, 1)}, "different ones"),
        ({"window": (4, 4, 4), "batch_size": 0}, "batch_size >= 1"),
    ],
)
def test_senseless_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliding_window_probabilities(lambda x: x, torch.zeros(1, 4, 4, 4), **options)  # type: ignore[arg-type]
