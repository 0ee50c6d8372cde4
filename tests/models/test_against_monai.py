"""Our window inference and losses against MONAI's."""

import pytest
import torch
from torch import Tensor, nn

from models import (
    UNET_PRESETS,
    Loss,
    LossConfig,
    build_unet,
    sliding_window_probabilities,
)

pytest.importorskip("monai", reason="monai isn't installed (pip install .[dev])")
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss, FocalLoss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [
        ((40, 37, 33), (16, 16, 16), 0.5),
        ((20, 24, 30), (16, 8, 16), 0.25),
        ((10, 40, 17), (16, 16, 16), 0.7),  # thinner than the window
        ((16, 16, 16), (16, 16, 16), 0.5),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_probabilities_equal_monais(
    shape: tuple[int, int, int], window: tuple[int, int, int], overlap: float, batch_size: int
) -> None:
    network = build_unet(UNET_PRESETS["tiny"]).eval()
    image = torch.randn(4, *shape)
    with torch.no_grad():
        wanted = sliding_window_inference(
            image[None], window, batch_size, lambda x: torch.sigmoid(network(x)[0]), overlap=overlap, mode="gaussian"
        )
    assert isinstance(wanted, Tensor)
    came = sliding_window_probabilities(
        lambda x: network(x)[0], image, window=window, overlap=overlap, batch_size=batch_size
    )
    torch.testing.assert_close(came, wanted[0], rtol=0, atol=1e-4)
    assert float(came.std()) > 0.01


def test_no_more_forward_passes_than_monai() -> None:
    calls = {"ours": 0, "monai": 0}

    def count(who: str) -> nn.Module:
        class Counter(nn.Module):
            def forward(self, image: Tensor) -> Tensor:
                calls[who] += image.shape[0]
                return image

        return Counter()

    image = torch.zeros(1, 50, 41, 37)
    sliding_window_probabilities(count("ours"), image, window=(16, 16, 16), overlap=0.5, batch_size=2)
    sliding_window_inference(image[None], (16, 16, 16), 2, count("monai"), overlap=0.5, mode="gaussian")
    assert calls["ours"] == calls["monai"] > 0


@pytest.mark.parametrize("batch", [True, False])
def test_dice_and_focal_losses_equal_monais(batch: bool) -> None:  # noqa: FBT001
    logits, regions = torch.randn(2, 3, 6, 7, 8), (torch.rand(2, 3, 6, 7, 8) < 0.3).float()
    dice = Loss(LossConfig(dice="batch" if batch else "sample", voxel="none", smooth=1e-5))
    wanted = DiceLoss(sigmoid=True, batch=batch, smooth_nr=1e-5, smooth_dr=1e-5)(logits, regions)
    torch.testing.assert_close(dice((logits,), regions), wanted)
    focal = Loss(LossConfig(dice="none", voxel="focal", focal_gamma=2.0))
    torch.testing.assert_close(focal((logits,), regions), FocalLoss(gamma=2.0)(logits, regions))
