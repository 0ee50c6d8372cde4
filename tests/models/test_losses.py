from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import PYTORCH3DUNET_LOSS, Loss, LossConfig, check_loss, number_labels
from tests import own_networks

CONFIGS = [
    LossConfig(dice=dice, voxel=voxel)  # type: ignore[arg-type]
    for dice in ("batch", "sample", "none")
    for voxel in ("bce", "ce", "focal", "none")
    if (dice, voxel) != ("none", "none")
] + [PYTORCH3DUNET_LOSS]


def _nested_regions(batch: int = 2, sides: tuple[int, ...] = (4, 5, 6)) -> Tensor:
    whole = torch.rand(batch, 1, *sides) < 0.4
    core = whole & (torch.rand_like(whole, dtype=torch.float32) < 0.5)
    enhancing = core & (torch.rand_like(core, dtype=torch.float32) < 0.5)
    return torch.cat((whole, core, enhancing), dim=1).to(torch.uint8)


def test_dice_and_bce_equal_the_formula_written_out() -> None:
    logits, regions = torch.randn(2, 3, 4, 5, 6), _nested_regions()
    p, t = logits.sigmoid().double(), regions.double()
    bce = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    batch_dice = torch.stack([2 * (p[:, r] * t[:, r]).sum() / (p[:, r].sum() + t[:, r].sum()) for r in range(3)])
    sample_dice = torch.stack(
        [2 * (p[b, r] * t[b, r]).sum() / (p[b, r].sum() + t[b, r].sum()) for b in range(2) for r in range(3)]
    )
    for name, dice in (("batch", batch_dice), ("sample", sample_dice)):
        loss = Loss(LossConfig(dice=name, dice_weight=0.7, voxel_weight=0.3, smooth=0.0))  # type: ignore[arg-type]
        wanted = 0.3 * bce + 0.7 * (1 - dice.mean())
        torch.testing.assert_close(loss((logits,), regions).double(), wanted, rtol=1e-6, atol=0)


def test_cross_entropy_equals_torch_on_the_exclusive_labels() -> None:
    logits, regions = torch.randn(2, 3, 4, 5, 6), _nested_regions()
    labels = regions[:, 0].long() + regions[:, 1] + regions[:, 2]
    with_background = torch.cat((torch.zeros(2, 1, 4, 5, 6), logits), dim=1)
    softmax = with_background.softmax(1)
    regional = torch.stack([softmax[:, 1:].sum(1), softmax[:, 2:].sum(1), softmax[:, 3]], dim=1)
    dice = torch.stack(
        [2 * (regional[:, r] * regions[:, r]).sum() / (regional[:, r] + regions[:, r]).sum() for r in range(3)]
    )
    wanted = torch.nn.functional.cross_entropy(with_background, labels) + 1 - dice.mean()
    loss = Loss(LossConfig(voxel="ce", smooth=0.0))
    torch.testing.assert_close(loss((logits,), regions), wanted)


def test_cross_entropy_of_regions_that_exclude_each_other_equals_torch_on_their_labels() -> None:
    """An outer region, two that part it, one beside it; and a coarser output."""
    region_labels = number_labels(((8, 4), (8,), (4,), (6,)))
    assert region_labels == ((1, 2), (1,), (2,), (3,))
    labels = torch.randint(4, (2, 4, 6))
    regions = torch.stack([sum(labels == label for label in region) for region in region_labels], dim=1)  # type: ignore[misc]
    logits, coarse = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 2, 3)

    def wanted(logits: Tensor, labels: Tensor, regions: Tensor) -> Tensor:
        with_background = torch.cat((torch.zeros_like(logits[:, :1]), logits), dim=1)
        softmax = with_background.softmax(1)
        regional = torch.stack([softmax[:, list(region)].sum(1) for region in region_labels], dim=1)
        overlap, both = (regional * regions).sum((0, 2, 3)), (regional + regions).sum((0, 2, 3))
        return torch.nn.functional.cross_entropy(with_background, labels) + 1 - (2 * overlap / both).mean()

    loss = Loss(LossConfig(voxel="ce", smooth=0.0, output_weights=(0.75, 0.25)), region_labels=region_labels)
    fine = wanted(logits, labels, regions)
    shrunk = wanted(coarse, labels[:, 1::2, 1::2], regions[..., 1::2, 1::2])
    torch.testing.assert_close(loss((logits, coarse), regions.to(torch.uint8)), 0.75 * fine + 0.25 * shrunk)
    with pytest.raises(ValueError, match=r"must have the labels' shape \(2, 3, 4, 6\), got \(2, 4, 4, 6\)"):
        loss((torch.zeros(2, 4, 4, 6),), regions)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_equals_its_paper(gamma: float) -> None:
    logits, regions = torch.randn(2, 3, 4, 5), _nested_regions(sides=(4, 5))
    p = logits.sigmoid()
    p_true = torch.where(regions == 1, p, 1 - p)
    loss = Loss(LossConfig(dice="none", voxel="focal", focal_gamma=gamma))
    torch.testing.assert_close(loss((logits,), regions), (-((1 - p_true) ** gamma) * p_true.log()).mean())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.dice}-{c.voxel}-{c.squared}")
@pytest.mark.parametrize("value", [6e4, -6e4, 0.0])
@pytest.mark.parametrize("truth", ["background", "full", "mixed"])
def test_loss_and_gradients_stay_finite_at_the_ends_of_float16(config: LossConfig, value: float, truth: str) -> None:
    logits = torch.full((2, 3, 4, 4, 4), value, dtype=torch.float16)
    logits[0, :, :2] *= -1
    logits.requires_grad_()
    regions = {
        "background": torch.zeros(2, 3, 4, 4, 4, dtype=torch.uint8),
        "full": torch.ones(2, 3, 4, 4, 4, dtype=torch.uint8),
        "mixed": _nested_regions(sides=(4, 4, 4)),
    }[truth]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = Loss(config)((logits,), regions)
    assert loss.dtype == torch.float32
    loss.backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.dice}-{c.voxel}-{c.squared}")
def test_gradients_equal_finite_differences(config: LossConfig) -> None:
    # The loss computes in float32, so differences are taken wide and compared in the direction of a random vector.
    logits = torch.randn(2, 3, 2, 3, 4, requires_grad=True)
    coarse = torch.randn(2, 3, 1, 2, 2, requires_grad=True)
    regions = _nested_regions(sides=(2, 3, 4))
    loss = Loss(config)
    loss((logits, coarse), regions).backward()
    for leaf, others in ((logits, lambda x: (x, coarse)), (coarse, lambda x: (logits, x))):
        direction = torch.randn_like(leaf)
        step = 1e-2
        with torch.no_grad():
            ahead, behind = (loss(others(leaf + sign * step * direction), regions) for sign in (1, -1))
        assert leaf.grad is not None
        slope = (leaf.grad * direction).sum()
        torch.testing.assert_close((ahead - behind) / (2 * step), slope, rtol=2e-3, atol=2e-5)


def test_deep_supervision_halves_the_weight_with_the_sides() -> None:
    regions = _nested_regions(sides=(8, 8, 8))
    outputs = tuple(torch.randn(2, 3, side, side, side) for side in (8, 4, 2))
    config = LossConfig(dice="none")
    single = Loss(config)
    # nearest-exact at half the sides takes the second voxel of each pair, at a quarter the third of four.
    shrunk = (regions, regions[..., 1::2, 1::2, 1::2], regions[..., 2::4, 2::4, 2::4])
    losses = [single((output,), truth) for output, truth in zip(outputs, shrunk, strict=True)]
    torch.testing.assert_close(single(outputs, regions), (4 * losses[0] + 2 * losses[1] + losses[2]) / 7)
    chosen = Loss(replace(config, output_weights=(1.0, 0.0, 0.5)))
    torch.testing.assert_close(chosen(outputs, regions), losses[0] + 0.5 * losses[2])


def test_an_absent_region_rightly_left_empty_costs_nothing() -> None:
    logits = torch.full((1, 3, 4, 4, 4), -200.0)
    regions = torch.zeros(1, 3, 4, 4, 4, dtype=torch.uint8)
    assert float(Loss(LossConfig())((logits,), regions)) == pytest.approx(0.0, abs=1e-6)


def test_wrong_shapes_and_empty_losses_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have the regions' shape \(1, 3, 4\), got \(1, 2, 4\)"):
        Loss(LossConfig())((torch.zeros(1, 2, 4),), torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="nothing to train on"):
        LossConfig(dice="none", voxel="none")
    with pytest.raises(ValueError, match="output_weights: wanted 2"):
        Loss(LossConfig(output_weights=(1.0,)))(
            (torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 4, 4)
        )


@pytest.mark.parametrize("name", ["squares", "Squares"])
def test_an_imported_loss_takes_float32_logits_and_regions_of_each_output(name: str) -> None:
    fine, coarse, regions = torch.randn(2, 3, 8, 8, 8), torch.randn(2, 3, 4, 4, 4).half(), _nested_regions(2, (8, 8, 8))
    config = LossConfig(function=f"tests.own_networks:{name}", arguments=("weight=3",))
    check_loss(config, regions=3, dimensions=3)
    shrunk = torch.nn.functional.interpolate(regions.float(), scale_factor=0.5, mode="nearest-exact")
    of_fine = own_networks.squares(fine, regions.float(), 3)
    wanted = (2 * of_fine + own_networks.squares(coarse.float(), shrunk, 3)) / 3
    torch.testing.assert_close(Loss(config)((fine, coarse), regions), wanted)
    torch.testing.assert_close(Loss(replace(config, output_weights=(1, 0)))((fine, coarse), regions), of_fine)
    # Of several workers it is their mean.
    loss = Loss(config, add_up=lambda sums: sums + torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(loss((fine,), regions), (of_fine + 1) / 2)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("Trained", (), "own_networks:Trained has weights of its own"),
        ("each", (), r"each gives \(2, 3, 16, 16\) for logits and regions \(2, 3, 16, 16\): wanted one number"),
        ("flat", (), r"flat gives \(\) without a gradient for logits and regions"),
        ("squares", ("wight=2",), "squares has no argument wight, did you mean weight\\?; it takes weight$"),
        ("squares", ("weight=a",), r"squares does not take logits and regions \(2, 3, 16, 16\): TypeError: "),
        ("Squares", ("weight=a",), r"Squares\(weight='a'\) fails: TypeError: "),
        ("nothing", (), "own_networks has no nothing that can be called"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(name: str, arguments: tuple[str, ...], says: str) -> None:
    config = LossConfig(function=f"tests.own_networks:{name}", arguments=arguments)
    with pytest.raises(ValueError, match=says):
        check_loss(config, regions=3, dimensions=2)
