"""Our networks against pytorch-3dunet's own, weight for weight."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from models import PYTORCH3DUNET_LOSS, UNET_PRESETS, Execution, Loss, build_unet, unet_from_pytorch3dunet

original = pytest.importorskip(
    "pytorch3dunet.unet3d.model", reason="pytorch3dunet isn't installed (pip install .[dev])"
)


def _scramble(network: nn.Module) -> nn.Module:
    """Weights and normalisation parameters that are all different, as after training."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def _theirs(dimensions: int, **options: int) -> nn.Module:
    kind = original.UNet3D if dimensions == 3 else original.UNet2D
    return _scramble(kind(4, 3, **{"f_maps": 18, "num_groups": 9, **options}))


@pytest.mark.parametrize(
    ("dimensions", "sides"), [(3, (16, 24, 16)), (3, (13, 18, 11)), (2, (32, 48)), (2, (25, 30))], ids=str
)
def test_equal_weights_give_equal_outputs(dimensions: int, sides: tuple[int, ...]) -> None:
    theirs = _theirs(dimensions)
    ours = unet_from_pytorch3dunet(theirs.state_dict()).eval()
    assert ours.config == UNET_PRESETS[f"unet{dimensions}d"]
    image = torch.randn(2, 4, *sides)
    with torch.no_grad():
        probabilities, logits = theirs(image, return_logits=True)
        (output,) = ours(image)
    torch.testing.assert_close(output, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.sigmoid(), probabilities, rtol=0, atol=1e-5)
    assert float(logits.std()) > 0.1  # not equal because there is nothing to see


def test_another_memory_layout_costs_no_accuracy() -> None:
    theirs = _theirs(3)
    image = torch.randn(2, 4, 16, 16, 16)
    ours = unet_from_pytorch3dunet(theirs.state_dict(), execution=Execution(channels_last=True)).eval()
    with torch.no_grad():
        logits, output = theirs(image, return_logits=True)[1], ours(image)[0]
        exact = theirs.double()(image.double(), return_logits=True)[1]
    assert float((output - exact).abs().max()) < 3 * float((logits - exact).abs().max())


def test_gradients_are_equal_as_well() -> None:
    theirs = _theirs(3)
    ours = unet_from_pytorch3dunet(theirs.state_dict())
    image = torch.randn(1, 4, 8, 8, 8)
    (theirs(image, return_logits=True)[1] ** 2).sum().backward()
    (ours(image)[0] ** 2).sum().backward()
    wanted, came = (
        theirs.encoders[0].basic_module.SingleConv1.conv.weight.grad,
        ours.encoder[0][0].convolution.weight.grad,
    )  # type: ignore[index,union-attr]
    torch.testing.assert_close(came, wanted, rtol=1e-3, atol=1e-4)


def test_other_widths_groups_and_wrapped_checkpoints() -> None:
    theirs = _theirs(3, f_maps=16, num_groups=8, num_levels=3)
    image = torch.randn(1, 4, 8, 8, 8)
    with torch.no_grad():
        wanted = theirs(image, return_logits=True)[1]
        for state in (
            theirs.state_dict(),
            {"model_state_dict": theirs.state_dict(), "num_epochs": 3},
            {f"module.{name}": value for name, value in theirs.state_dict().items()},
        ):
            ours = unet_from_pytorch3dunet(state).eval()
            assert (ours.config.widths, ours.config.norm_groups) == ((16, 32, 64), 8)
            torch.testing.assert_close(ours(image)[0], wanted, rtol=0, atol=1e-5)
    fewer = _theirs(3, f_maps=16, num_groups=4)
    with torch.no_grad():
        ours = unet_from_pytorch3dunet(fewer.state_dict(), norm_groups=4).eval()
        torch.testing.assert_close(ours(image)[0], fewer(image, return_logits=True)[1], rtol=0, atol=1e-5)


def test_2d_kernels_stored_as_3d() -> None:
    theirs = _theirs(2)
    flat = {name: value.unsqueeze(2) if value.ndim == 4 else value for name, value in theirs.state_dict().items()}
    ours = unet_from_pytorch3dunet(flat).eval()
    image = torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(image)[0].sigmoid(), theirs(image), rtol=0, atol=1e-5)


def test_fresh_weights_have_the_originals_spread() -> None:
    """The preset starts training as the original does: PyTorch's own initial weights."""
    ours = build_unet(UNET_PRESETS["unet3d"])
    spread = {
        name: float(value.std())
        for name, value in unet_from_pytorch3dunet(original.UNet3D(4, 3, f_maps=18, num_groups=9).state_dict())
        .state_dict()
        .items()
        if value.ndim == 5
    }
    for name, value in ours.state_dict().items():
        if name in spread and value.numel() > 1000:
            assert float(value.std()) == pytest.approx(spread[name], rel=0.1)


@pytest.mark.parametrize("build", ["ResidualUNet3D", "other order", "deconv", "nonsense"])
def test_other_architectures_are_refused(build: str) -> None:
    states: dict[str, dict[str, Tensor]] = {
        "ResidualUNet3D": original.ResidualUNet3D(4, 3, f_maps=8).state_dict(),
        "other order": original.UNet3D(4, 3, f_maps=8, layer_order="bcr").state_dict(),
        "deconv": original.UNet3D(4, 3, f_maps=8, upsample="deconv").state_dict(),
        "nonsense": {},
    }
    with pytest.raises(ValueError, match="UNet3D or UNet2D with layer order 'gcr'"):
        unet_from_pytorch3dunet(states[build])


def test_groups_that_cannot_be_guessed_are_asked_for() -> None:
    state = original.UNet3D(4, 3, f_maps=20, num_groups=5).state_dict()
    with pytest.raises(ValueError, match="give norm_groups"):
        unet_from_pytorch3dunet(state)
    assert unet_from_pytorch3dunet(state, norm_groups=5).config.norm_groups == 5


@pytest.mark.parametrize("case", ["random", "empty", "certain"])
def test_bce_dice_equals_theirs(case: str) -> None:
    losses: ModuleType = pytest.importorskip("pytorch3dunet.unet3d.losses")
    logits = torch.randn(2, 3, 6, 7, 8) * (20 if case == "certain" else 1)
    regions = (torch.rand(2, 3, 6, 7, 8) < (0.0 if case == "empty" else 0.3)).to(torch.uint8)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = Loss(PYTORCH3DUNET_LOSS)((ours,), regions)
    wanted = losses.BCEDiceLoss()(theirs, regions.float())
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-9)
