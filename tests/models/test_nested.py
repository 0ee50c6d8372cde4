from dataclasses import replace

import torch

from models import UNET_PRESETS, Loss, LossConfig, build_unet
from models.nested import labels_from_regions, region_logits_from_label_logits


def test_region_probabilities_are_sums_of_the_labels_softmax() -> None:
    logits = 3 * torch.randn(2, 3, 4, 5)
    softmax = torch.cat((torch.zeros(2, 1, 4, 5), logits), dim=1).softmax(1)
    wanted = torch.stack([softmax[:, 1:].sum(1), softmax[:, 2:].sum(1), softmax[:, 3]], dim=1)
    torch.testing.assert_close(region_logits_from_label_logits(logits).sigmoid(), wanted)


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
