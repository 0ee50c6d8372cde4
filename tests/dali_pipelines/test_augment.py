"""Each augmentation against numpy or scipy. Volumes are (M, D, H, W), M = 4; slices (M, H, W)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from dali_pipelines import augment
from dali_pipelines.noise_bank import BANK_SLACK, make_noise_bank
from storage import region_masks
from storage.labels.tasks import GLIOMA_REGIONS

Compute = Callable[..., list[list[np.ndarray]]]

SHAPES = {"DHW": (9, 12, 10), "HW": (12, 10)}
FACTORS = np.array([0.75, 1.2, 1.0, 1.4], np.float32)


def make_image(spatial: str) -> np.ndarray:
    return np.random.default_rng(5).normal(1, 2, (4, *SHAPES[spatial])).astype(np.float32)


def apply(compute: Compute, graph: Callable[..., Any], image: np.ndarray, spatial: str, **inputs: Any) -> np.ndarray:
    given = {"image": [image]} | {name: [value] for name, value in inputs.items()}
    return compute(graph, given, {"image": f"C{spatial}"})[0][0]


@pytest.mark.parametrize("integers", [True, False])
def test_normalise(compute: Compute, *, integers: bool) -> None:
    image = np.random.default_rng(1).integers(0, 3, (4, 6, 7, 5)).astype(np.int16 if integers else np.float32)
    scale, offset = np.float32([0.5, 2, 3, -1]), np.float32([1, 2, -3, 4])

    def graph(image: Any, scale: Any, offset: Any) -> Any:
        return augment.normalise(image, scale, offset, modalities=4, integers=integers)

    wanted = image * scale[:, None, None, None] + offset[:, None, None, None]
    outside = (image == 0).all(axis=0)
    assert outside.any()
    wanted[:, outside] = 0
    np.testing.assert_array_equal(apply(compute, graph, image, "DHW", scale=scale, offset=offset), wanted)


@pytest.mark.parametrize("spatial", ["DHW", "HW"])
def test_mirror(compute: Compute, spatial: str) -> None:
    image = make_image(spatial)
    flags = np.array([[1, 0, 1][-len(spatial) :], [0, 1, 1][-len(spatial) :]], np.int32)

    def graph(image: Any, axes: Any) -> Any:
        return augment.mirror(image, axes, spatial)

    results = compute(graph, {"image": [image, image], "axes": list(flags)}, {"image": f"C{spatial}"})[0]
    for result, axes in zip(results, flags, strict=True):
        np.testing.assert_array_equal(result, np.flip(image, [1 + axis for axis in np.flatnonzero(axes)]))


@pytest.mark.parametrize("spatial", ["DHW", "HW"])
def test_noise_is_a_mirrored_window_of_the_bank(compute: Compute, spatial: str) -> None:
    image = make_image(spatial)
    bank = make_noise_bank(4, image.shape[1:])
    anchor = np.array([0, 3, BANK_SLACK, 1][: image.ndim], np.int32)
    axes = np.array([1, 0, 1][: image.ndim - 1], np.int32)

    def graph(image: Any, bank: Any, sigma: Any, anchor: Any, axes: Any) -> Any:
        return augment.noise(image, bank, sigma, anchor, axes, tuple(make_image(spatial).shape), spatial)

    window = bank[tuple(slice(a, a + side) for a, side in zip(anchor, image.shape, strict=True))]
    sigma = np.array([-0.3, 0, -0.3, 0.2], np.float32)
    deviates = np.flip(window, [1 + axis for axis in np.flatnonzero(axes)])
    wanted = image + np.stack([one * deviation for one, deviation in zip(deviates, sigma, strict=True)])
    given = {"image": [image], "bank": [bank], "sigma": [sigma], "anchor": [anchor], "axes": [axes]}
    result = compute(graph, given, {"image": f"C{spatial}", "bank": f"C{spatial}"})[0][0]
    np.testing.assert_allclose(result, wanted, atol=1e-6)


def test_the_noise_bank_is_standard_normal() -> None:
    bank = make_noise_bank(4, (16, 16, 16))
    assert bank.shape == (4, 48, 48, 48)
    assert abs(bank.mean()) < 0.01
    assert abs(bank.std() - 1) < 0.01


@pytest.mark.parametrize("spatial", ["DHW", "HW"])
def test_blur_of_the_chosen_modalities_alone(compute: Compute, spatial: str) -> None:
    image = make_image(spatial)
    sigma = np.random.default_rng(2).uniform(0.5, 1.5, (4, len(spatial))).astype(np.float32)

    def graph(image: Any, chosen: Any, sigma: Any) -> Any:
        return augment.blur(image, chosen, sigma, spatial, modalities=4)

    result = apply(compute, graph, image, spatial, chosen=np.array([True, False, True, True]), sigma=sigma)
    for m in range(4):
        radius = np.ceil(3 * sigma[m]).astype(int)
        wanted = image[m] if m == 1 else ndimage.gaussian_filter(image[m], sigma[m], mode="mirror", radius=radius)
        np.testing.assert_allclose(result[m], wanted, atol=1e-5)


@pytest.mark.parametrize("spatial", ["DHW", "HW"])
def test_brightness(compute: Compute, spatial: str) -> None:
    image = make_image(spatial)

    def graph(image: Any, factor: Any) -> Any:
        return augment.brightness(image, factor, spatial)

    wanted = image * FACTORS.reshape(4, *[1] * len(spatial))
    np.testing.assert_allclose(apply(compute, graph, image, spatial, factor=FACTORS), wanted, rtol=1e-6)


@pytest.mark.parametrize("spatial", ["DHW", "HW"])
def test_contrast_pivots_on_the_mean_and_keeps_the_range(compute: Compute, spatial: str) -> None:
    image = make_image(spatial)

    def graph(image: Any, factor: Any) -> Any:
        return augment.contrast(image, factor, spatial)

    result = apply(compute, graph, image, spatial, factor=FACTORS)
    for m in range(4):
        stretched = (image[m] - image[m].mean()) * FACTORS[m] + image[m].mean()
        np.testing.assert_allclose(result[m], np.clip(stretched, image[m].min(), image[m].max()), atol=2e-5)


@pytest.mark.parametrize("spatial", ["DHW", "HW"])
def test_low_resolution_of_the_chosen_modalities_alone(compute: Compute, spatial: str) -> None:
    image = make_image(spatial)
    size = image.shape[1:]
    coarse_shapes = np.array([[5, 7, 5], [4, 4, 4], [9, 12, 10], [6, 6, 9]], np.float32)[:, -len(spatial) :]

    def graph(image: Any, chosen: Any, shape: Any) -> Any:
        return augment.low_resolution(image, chosen, shape, SHAPES[spatial], spatial, modalities=4)

    chosen = np.array([True, False, True, True])
    result = apply(compute, graph, image, spatial, chosen=chosen, shape=coarse_shapes)
    for m in range(4):
        wanted = image[m] if m == 1 else coarsen(image[m], coarse_shapes[m].astype(int), size)
        np.testing.assert_allclose(result[m], wanted, atol=1e-5)


def coarsen(image: np.ndarray, shape: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Nearest neighbour onto `shape`, linear back onto `size`; voxel centres at half a voxel."""
    picked = [np.floor((np.arange(c) + 0.5) * s / c).astype(int) for c, s in zip(shape, size, strict=True)]
    coarse = image[np.ix_(*picked)]
    places = [(np.arange(s) + 0.5) * c / s - 0.5 for c, s in zip(shape, size, strict=True)]
    return ndimage.map_coordinates(coarse, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("spatial", ["DHW", "HW"])
def test_gamma_keeps_mean_and_standard_deviation(compute: Compute, spatial: str, *, inverted: bool) -> None:
    image = make_image(spatial)

    def graph(image: Any, exponent: Any) -> Any:
        return augment.gamma(image, exponent, spatial, inverted=inverted)

    result = apply(compute, graph, image, spatial, exponent=FACTORS)
    for m in range(4):
        one = -image[m] if inverted else image[m]
        curved = ((one - one.min()) / (one.max() - one.min())) ** FACTORS[m]
        wanted = (curved - curved.mean()) / curved.std() * one.std() + one.mean()
        np.testing.assert_allclose(result[m], -wanted if inverted else wanted, atol=2e-4)
        np.testing.assert_allclose(result[m].mean(), image[m].mean(), atol=1e-4)
        np.testing.assert_allclose(result[m].std(), image[m].std(), rtol=1e-4)


def test_gamma_and_contrast_leave_an_empty_patch_empty(compute: Compute) -> None:
    def graph(image: Any, factor: Any) -> Any:
        image = augment.gamma(image, factor, "DHW", inverted=True)
        return augment.contrast(image, factor, "DHW")

    image = np.zeros((4, 5, 6, 7), np.float32)
    np.testing.assert_array_equal(apply(compute, graph, image, "DHW", factor=FACTORS), image)


def test_regions_in_their_order(compute: Compute) -> None:
    label = np.random.default_rng(3).integers(0, 5, (1, 6, 7, 8)).astype(np.uint8)
    result = compute(
        lambda label: augment.regions(label, [region.labels for region in GLIOMA_REGIONS]),
        {"label": [label]},
        {"label": "CDHW"},
    )[0][0]
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, region_masks(label[0], GLIOMA_REGIONS))


def test_constants_do_not_widen_the_image(compute: Compute) -> None:
    image = make_image("DHW")

    def graph(image: Any, factor: Any) -> Any:
        return augment.gamma(image, factor, "DHW", inverted=False)

    assert apply(compute, graph, image, "DHW", factor=FACTORS).dtype == np.float32
