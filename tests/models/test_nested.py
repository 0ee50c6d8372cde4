from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models import UNET_PRESETS, Loss, LossConfig, RegionLabels, build_unet, number_labels
from models.nested import labels_from_regions, region_logits_from_label_logits
from models.region_forest import count_labels, nested_labels

CHAIN = ((1, 2, 3), (1, 3), (3,))
FORESTS = [
    number_labels(labels) or nested_labels(len(labels))
    for labels in (
        CHAIN,
        (*CHAIN, (1,), (2,), (4,)),
        ((2, 6, 5, 3), (6, 5, 3), (3,), (6,), (5,), (2,)),
        ((7,),),
        ((3,), (9,), (1, 3)),
    )
]


def membership(region_labels: RegionLabels) -> Tensor:
    """inside_RL, one column for each label from 1 on."""
    labels = torch.arange(1, count_labels(region_labels) + 1)
    return torch.stack([torch.isin(labels, torch.tensor(region)) for region in region_labels])


def test_region_probabilities_are_sums_of_the_labels_softmax() -> None:
    logits = 3 * torch.randn(2, 3, 4, 5)
    softmax = torch.cat((torch.zeros(2, 1, 4, 5), logits), dim=1).softmax(1)
    wanted = torch.stack([softmax[:, 1:].sum(1), softmax[:, 2:].sum(1), softmax[:, 3]], dim=1)
    torch.testing.assert_close(region_logits_from_label_logits(logits).sigmoid(), wanted)


@pytest.mark.parametrize("region_labels", FORESTS)
def test_region_probabilities_of_any_forest_are_sums_of_its_labels(region_labels: RegionLabels) -> None:
    logits = 3 * torch.randn(2, count_labels(region_labels), 4, 5)
    softmax = torch.cat((torch.zeros(2, 1, 4, 5), logits), dim=1).softmax(1)
    wanted = torch.einsum("rl,blhw->brhw", membership(region_labels).float(), softmax[:, 1:])
    torch.testing.assert_close(region_logits_from_label_logits(logits, region_labels).sigmoid(), wanted)


@pytest.mark.parametrize("region_labels", FORESTS)
def test_labels_of_any_forest_come_back_from_its_masks(region_labels: RegionLabels) -> None:
    count = count_labels(region_labels)
    labels = torch.randint(count + 1, (2, 3, 4))
    table = torch.cat((torch.zeros(len(region_labels), 1), membership(region_labels)), dim=1)
    regions = table[:, labels].transpose(0, 1)
    for masks in (regions, regions.to(torch.uint8), regions == 1):
        found = labels_from_regions(masks, region_labels)
        assert found.dtype == torch.int64 and torch.equal(found, labels)


def test_what_is_not_said_is_the_nested_chain_to_the_bit() -> None:
    chain, logits = nested_labels(3), 3 * torch.randn(2, 3, 4, 5)
    assert torch.equal(region_logits_from_label_logits(logits), region_logits_from_label_logits(logits, chain))
    regions = (torch.rand(2, 3, 4, 5) < 0.6).cumprod(1)
    assert torch.equal(labels_from_regions(regions), labels_from_regions(regions, chain))


@pytest.mark.parametrize("region_labels", FORESTS[1:])
def test_a_forest_stays_nested_and_finite_at_the_ends_of_float16(region_labels: RegionLabels) -> None:
    ends = torch.tensor([-6e4, 6e4], dtype=torch.float16)
    grid = torch.cartesian_prod(*[ends] * count_labels(region_labels)).reshape(1, -1, count_labels(region_labels))
    logits = grid.movedim(-1, 1).clone().requires_grad_()
    regions = region_logits_from_label_logits(logits, region_labels)
    regions.sum().backward()
    assert logits.grad is not None and bool(regions.isfinite().all()) and bool(logits.grad.isfinite().all())
    for inner, labels in enumerate(region_labels):
        for outer, around in enumerate(region_labels):
            assert not {*labels} < {*around} or bool((regions[:, outer] >= regions[:, inner]).all())


def test_regions_stay_nested_and_finite_at_the_ends_of_float16() -> None:
    logits = torch.tensor([-6e4, 0.0, 6e4], dtype=torch.float16)
    grid = torch.cartesian_prod(logits, logits, logits).T[None]
    whole, core, enhancing = region_logits_from_label_logits(grid).unbind(1)
    assert bool(torch.isfinite(whole + core + enhancing).all())
    assert bool((whole >= core).all() and (core >= enhancing).all())


def test_labels_count_the_regions_a_voxel_lies_in() -> None:
    regions = torch.tensor([[[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]], dtype=torch.uint8)
    assert labels_from_regions(regions).tolist() == [[0, 1, 2, 3]]


def test_a_labels_head_trains_on_labels_and_predicts_regions() -> None:
    config = replace(UNET_PRESETS["tiny"], widths=(4, 8), head="labels", deep_supervision=0)
    loss = LossConfig(voxel="ce")
    assert (loss.head, LossConfig().head) == (config.head, "regions")
    network = build_unet(config)
    image = torch.randn(1, 4, 8, 8, 8)
    in_training = network(image)[0]
    Loss(loss)((in_training,), torch.zeros(1, 3, 8, 8, 8)).backward()
    torch.testing.assert_close(network.eval()(image)[0], region_logits_from_label_logits(in_training))


def test_a_labels_head_of_regions_that_exclude_each_other_trains_and_predicts() -> None:
    region_labels = number_labels((*CHAIN, (1,), (2,), (4,)))
    tiny = replace(UNET_PRESETS["tiny"], widths=(4, 8), head="labels", deep_supervision=0)
    config = replace(tiny, regions=6, region_labels=region_labels)
    network, image = build_unet(config), torch.randn(1, 4, 8, 8, 8)
    in_training = network(image)[0]
    assert in_training.shape == (1, 4, 8, 8, 8) and config.outputs == 4
    loss = Loss(LossConfig(voxel="ce"), region_labels=region_labels)
    loss((in_training,), torch.zeros(1, 6, 8, 8, 8)).backward()
    predicted = network.eval()(image)[0]
    assert predicted.shape == (1, 6, 8, 8, 8)
    torch.testing.assert_close(predicted, region_logits_from_label_logits(in_training, region_labels))
    # The weights are those of a network with as many nested regions.
    nested = build_unet(replace(tiny, regions=4))
    assert [*nested.state_dict()] == [*network.state_dict()]
    nested.load_state_dict(network.state_dict())
