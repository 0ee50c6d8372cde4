import pytest
import torch
from torch.nn import functional

from models.blocks import make_norm


@pytest.mark.parametrize("sides", [(4, 5), (4, 5, 6)], ids=str)
def test_instance_normalisation_is_the_same_by_either_way(sides: tuple[int, ...]) -> None:
    """GPUs take torch's instance normalisation, CPUs its group normalisation."""
    norm = make_norm(6, None)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    features, direction = 3 + 2 * torch.randn(2, 6, *sides), torch.randn(2, 6, *sides)
    gradients = []
    for instances in (False, True):
        leaf = features.clone().requires_grad_()
        output = functional.instance_norm(leaf, weight=norm.weight, bias=norm.bias) if instances else norm(leaf)
        (output * direction).sum().backward()
        gradients.append((output.detach(), leaf.grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [None, 2])
def test_autocast_keeps_features_in_16_bits(groups: int | None, device: torch.device) -> None:
    norm = make_norm(6, groups).to(device)
    features = torch.randn(2, 6, 4, 5, 6, device=device, dtype=torch.bfloat16)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        output = norm(features)
    assert output.dtype == torch.bfloat16
    wanted = functional.group_norm(features.float(), groups or 6)
    torch.testing.assert_close(output.float(), wanted, rtol=0.02, atol=0.02)


def test_fewer_features_than_groups_make_one_group_and_uneven_groups_are_refused() -> None:
    assert make_norm(4, 9).num_groups == 1
    with pytest.raises(ValueError, match="10 features don't divide into 4 groups"):
        make_norm(10, 4)


@pytest.mark.slow
def test_sums_over_many_voxels_lose_nothing_on_either_way() -> None:
    """A million of them added up in one float32 put the variance off by 2e-4 of itself, and with it all outputs."""
    features = 0.3 + torch.randn(2, 4, 96, 96, 96)
    direction, wanted = torch.randn_like(features), features.double().requires_grad_()
    functional.instance_norm(wanted).backward(direction.double())
    exact = functional.instance_norm(wanted.detach())
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        leaf = features.clone(memory_format=layout).requires_grad_()
        output = make_norm(4, None)(leaf)
        output.backward(direction)
        assert leaf.grad is not None and wanted.grad is not None
        assert (output - exact).abs().max() < 5e-6
        assert (leaf.grad - wanted.grad).abs().max() < 5e-6
