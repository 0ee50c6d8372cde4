"""Training losses, computed in float32 from sums that any number of workers can add up.

Letters in names: B batch, R region, V voxels of a sample flattened.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import LossConfig
from models.imported_loss import make_loss
from models.nested import labels_from_regions, region_logits_from_label_logits, with_background
from models.rank_sums import sum_over_ranks
from models.region_forest import RegionLabels, count_labels


class Loss(nn.Module):
    """loss(outputs: tuple of logits_BR…, regions_BR…) -> scalar float32; with voxel="ce" the logits are of labels.

    add_up: sums a vector over the workers in a way that gradients pass and DDP's averaging makes right. The default
    does so where torch.distributed is initialised, so that any number of workers gives one worker's loss and gradients.
    region_labels: the network's, for voxel="ce" (`UNetConfig.region_labels`).
    """

    def __init__(
        self,
        config: LossConfig,
        add_up: Callable[[Tensor], Tensor] = sum_over_ranks,
        *,
        region_labels: RegionLabels | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self._add_up = add_up
        self._region_labels = region_labels
        self._imported = None if config.function is None else make_loss(config)

    def forward(self, outputs: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Scalar float32 from logits_BR… (finest first) and regions_BR… of 0 and 1 at the finest output's sides.

        In training mode the sums are taken over all workers, so every worker must take part and gets the same value.
        Raises ValueError when shapes disagree.
        """
        wanted, what = tuple(regions.shape), "the regions' shape"
        if self._region_labels is not None:
            wanted, what = (len(regions), count_labels(self._region_labels), *regions.shape[2:]), "the labels' shape"
        if not outputs or outputs[0].shape != wanted:
            came = tuple(outputs[0].shape) if outputs else "no output"
            raise ValueError(f"the finest output must have {what} {wanted}, got {came}")
        weights = _output_weights(self.config, len(outputs))
        # Autocast would compute parts of the sums in half precision, where 128³ voxels overflow.
        with torch.autocast(device_type=regions.device.type, enabled=False):
            sums = [self._sums(logits, _shrink(regions, logits)) for logits in outputs]
            flat = torch.cat([part.reshape(-1) for output in sums for part in output])
            if self.training:
                flat = self._add_up(flat)  # one collective of a few dozen numbers, whatever the loss
            sizes = [part.numel() for output in sums for part in output]
            parts = list(flat.split(sizes))
            total = flat.new_zeros(())
            for index, weight in enumerate(weights):
                dice, voxel = parts[2 * index : 2 * index + 2]
                total = total + weight * self._combine(dice.reshape(sums[index][0].shape), voxel)
        return total

    def _sums(self, logits_BR: Tensor, regions_BR: Tensor) -> tuple[Tensor, Tensor]:
        """What this worker adds to the Dice term (per region) and to the voxel term (sum, count).

        An imported loss takes the place of the voxel term, one for each worker.
        With voxel="ce" the logits that come in are the labels'.
        """
        config = self.config
        logits_BR = logits_BR.float()
        if self._imported is not None:
            value = self._imported(logits_BR, regions_BR.float()).reshape(())
            return value.new_zeros(0), torch.stack((value, torch.ones_like(value)))
        if config.voxel == "ce":
            voxel_sum = functional.cross_entropy(
                with_background(logits_BR), labels_from_regions(regions_BR, self._region_labels), reduction="sum"
            )
            voxel_count = regions_BR.numel() // regions_BR.shape[1]
            logits_BR = region_logits_from_label_logits(logits_BR, self._region_labels)
        else:
            voxel_count = regions_BR.numel()
            voxel_sum = _sum_voxel_loss(logits_BR, regions_BR, config)
        voxel = torch.stack((voxel_sum, torch.full_like(voxel_sum, voxel_count)))
        if config.dice == "none":
            return voxel.new_zeros(0), voxel
        probabilities_BRV = torch.sigmoid(logits_BR).flatten(2)
        regions_BRV = regions_BR.float().flatten(2)
        overlap_BR = (probabilities_BRV * regions_BRV).sum(-1)
        if config.squared:
            predicted_BR, present_BR = probabilities_BRV.square().sum(-1), regions_BRV.square().sum(-1)
        else:
            predicted_BR, present_BR = probabilities_BRV.sum(-1), regions_BRV.sum(-1)
        if config.dice == "batch":
            return torch.stack((overlap_BR.sum(0), (predicted_BR + present_BR).sum(0))), voxel
        dice_BR = _fraction(overlap_BR, predicted_BR + present_BR, config.smooth)
        return torch.stack((dice_BR.sum(0), torch.full_like(dice_BR[0], dice_BR.shape[0]))), voxel

    def _combine(self, dice_2R: Tensor, voxel_2: Tensor) -> Tensor:
        """The loss of one output from its sums over all workers."""
        config = self.config
        if self._imported is not None:
            return voxel_2[0] / voxel_2[1]
        loss = voxel_2.new_zeros(())
        if config.voxel != "none":
            loss = loss + config.voxel_weight * voxel_2[0] / voxel_2[1]
        if config.dice == "batch":
            loss = loss + config.dice_weight * (1 - _fraction(dice_2R[0], dice_2R[1], config.smooth).mean())
        elif config.dice == "sample":
            loss = loss + config.dice_weight * (1 - (dice_2R[0] / dice_2R[1]).mean())
        return loss


def _output_weights(config: LossConfig, count: int) -> tuple[float, ...]:
    if config.output_weights is None:
        halves = [0.5**index for index in range(count)]
        return tuple(half / sum(halves) for half in halves)
    if len(config.output_weights) < count:
        raise ValueError(f"LossConfig.output_weights: wanted {count}, one for each output, got {config.output_weights}")
    return config.output_weights[:count]


def _shrink(regions_BR: Tensor, logits_BR: Tensor) -> Tensor:
    """The regions at a coarser output's sides, nearest voxel."""
    if regions_BR.shape[2:] == logits_BR.shape[2:]:
        return regions_BR
    # Interpolation of integers isn't implemented for every number of axes and device.
    return functional.interpolate(regions_BR.float(), size=logits_BR.shape[2:], mode="nearest-exact")


def _sum_voxel_loss(logits_BR: Tensor, regions_BR: Tensor, config: LossConfig) -> Tensor:
    if config.voxel == "none":
        return logits_BR.new_zeros(())
    truth_BR = regions_BR.float()
    if config.voxel == "bce":
        return functional.binary_cross_entropy_with_logits(logits_BR, truth_BR, reduction="sum")
    loss_BR = functional.binary_cross_entropy_with_logits(logits_BR, truth_BR, reduction="none")
    # log(1 - p_true) as a logsigmoid: (1 - p_true)^gamma itself has an infinite slope at 0 for gamma below 1.
    wrong_BR = functional.logsigmoid(-logits_BR * (2 * truth_BR - 1))
    return (torch.exp(config.focal_gamma * wrong_BR) * loss_BR).sum()


def _fraction(overlap: Tensor, denominator: Tensor, smooth: float) -> Tensor:
    """Dice from its sums; the floor is pytorch-3dunet's and keeps an empty region without smoothing finite."""
    return (2 * overlap + smooth) / (denominator + smooth).clamp(min=1e-6)
