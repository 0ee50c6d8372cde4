"""On a CPU some layers of channels_last features are computed in another way: the same numbers, the same gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models import UNET_PRESETS, Execution, build_unet
from models.blocks import make_convolution, make_norm, make_upsampling
from models.cpu_convolutions import convolve_pairs, fills_few_lanes

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


def _gradients(layer: Callable[[Tensor], Tensor], features: Tensor, weights: list[Tensor]) -> list[Tensor]:
    leaf = features.clone().requires_grad_()
    output = layer(leaf)
    # Numbers that 16 bits hold, so that all types get the same.
    direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(output.dtype)
    return [output.detach(), *torch.autograd.grad(output, [leaf, *weights], direction)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 8, 6, 4, 8), (3, 24, 3, 5, 7), (2, 6, 8, 8)], ids=str)
def test_instance_normalisation_knows_the_layout(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    norm = make_norm(shape[1], None)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    features = (3 + 2 * torch.randn(shape)).to(dtype)
    exact = [weight.detach().double().requires_grad_() for weight in (norm.weight, norm.bias)]
    wanted = _gradients(
        lambda each: functional.instance_norm(each, weight=exact[0], bias=exact[1]), features.double(), exact
    )
    last = features.contiguous(memory_format=FORMATS[len(shape) - 2])
    came = _gradients(norm, last, [norm.weight, norm.bias])
    assert came[0].dtype == dtype
    assert came[0].is_contiguous(memory_format=FORMATS[len(shape) - 2])
    for part, exactly in zip(came, wanted, strict=True):
        close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.03}
        # The weights' gradients are sums over hundreds of rounded directions.
        scale = max(1.0, float(exactly.abs().max()) / 4)
        torch.testing.assert_close(part.double() / scale, exactly / scale, **close)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_upsampling_is_its_transposed_convolution(dimensions: int) -> None:
    layer = make_upsampling(dimensions, 5, 3, stride=2)
    plain = (functional.conv_transpose2d, functional.conv_transpose3d)[dimensions - 2]
    features = torch.randn(2, 5, *(3, 4, 2)[:dimensions])
    weights = [layer.weight, layer.bias]
    assert layer.bias is not None
    wanted = _gradients(lambda each: plain(each, layer.weight, layer.bias, stride=2), features, weights)  # type: ignore[list-item]
    came = _gradients(layer, features.contiguous(memory_format=FORMATS[dimensions]), weights)  # type: ignore[arg-type]
    assert came[0].is_contiguous(memory_format=FORMATS[dimensions])
    torch.testing.assert_close(came, wanted)


def test_pairs_of_voxels_are_convolved_as_single_ones() -> None:
    weight = torch.randn(3, 2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    features = torch.randn(2, 2, 4, 3, 6, dtype=torch.float64)
    wanted = _gradients(lambda each: functional.conv3d(each, weight, padding=1), features, [weight])
    last = features.contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(_gradients(lambda each: convolve_pairs(each, weight), last, [weight]), wanted)


@pytest.mark.parametrize(
    ("widths", "width", "dtype", "few"),
    [
        ((8, 8), 4, torch.bfloat16, True),
        ((8, 8), 5, torch.bfloat16, False),
        ((16, 8), 4, torch.bfloat16, False),
        ((8, 8), 4, torch.float32, False),
    ],
)
def test_pairs_are_made_of_few_features_in_16_bits(
    widths: tuple[int, int],
    width: int,
    dtype: torch.dtype,
    few: bool,  # noqa: FBT001
) -> None:
    layer = make_convolution(3, *widths, kernel=3)
    assert fills_few_lanes(torch.zeros(1, widths[0], 2, 2, width, dtype=dtype), layer.weight) is few


def test_the_special_ways_are_for_channels_last_features_alone() -> None:
    features = torch.randn(2, 8, 4, 4, 4)
    names = {}
    for last in (False, True):
        given = features.contiguous(memory_format=torch.channels_last_3d) if last else features
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = make_norm(8, None)(given), make_upsampling(3, 8, 4, stride=2)(given)
            convolved = make_convolution(3, 8, 8, kernel=3)(given)
        names[last] = [str(output.grad_fn) for output in (*outputs, convolved)]
    assert [name.partition("Backward")[0][1:] for name in names[False]] == [
        "NativeGroupNorm",
        "Convolution",
        "Convolution",
    ]
    assert "InstanceNormChannelsLast" in names[True][0]
    assert all("Convolution" not in name for name in names[True])


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_prediction_does_not_hang_on_the_number_of_threads(channels_last: bool) -> None:  # noqa: FBT001
    network = build_unet(UNET_PRESETS["tiny"], Execution(channels_last=channels_last)).eval()
    image, threads, found = torch.randn(1, 4, 32, 32, 32), torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                found.append(network(image)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
