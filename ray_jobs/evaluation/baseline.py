"""What no network is needed for: the best threshold on any single modality, scored like the network.

If it comes near the network's score, the cases are too easy to say anything about the network.
"""

from collections.abc import Sequence

import torch

from dali_pipelines import Volume
from models import ThresholdCounts

WIDEST = 5.0  # standard deviations: thresholds are tried over -5 … 5 of the normalised image


class SingleModalityBaseline:
    """Best IoU per region of `modality >= t` or `modality <= t` inside the brain, over modalities and thresholds.

    Where scans are not skull-stripped all that the box holds is inside, as there is no 0 around a brain.
    """

    def __init__(self, device: torch.device, modalities: int, regions: int) -> None:
        self._regions = regions
        self.counts = [
            ThresholdCounts(num_regions=2 * regions, device=device) for _ in range(modalities)
        ]  # a region above the threshold, then each below it

    def update(self, volume: Volume) -> None:
        """Count one case."""
        assert volume.regions_RDHW is not None
        everywhere = torch.ones_like(volume.image_MDHW[0], dtype=torch.bool)
        brain_DHW = (volume.image_MDHW != 0).any(dim=0) if volume.outside_M is None else everywhere
        regions = torch.cat([volume.regions_RDHW, volume.regions_RDHW])
        for counts, scan_DHW in zip(self.counts, volume.image_MDHW, strict=True):
            above = ((scan_DHW / WIDEST + 1) / 2).clamp(0.001, 0.999)
            both = torch.stack([above, 1 - above]) * brain_DHW
            counts.update(volume.case_id, both.repeat_interleave(self._regions, dim=0), regions)


def best_single_modality_iou(counts_per_modality: list[ThresholdCounts], regions: Sequence[str]) -> dict[str, float]:
    """Return the best IoU of each region over modalities, directions and thresholds, and the mean of those."""
    found = torch.stack([torch.as_tensor(counts.best_per_region().iou) for counts in counts_per_modality])
    best = found.reshape(-1, len(regions)).amax(dim=0).tolist()
    return {**dict(zip(regions, best, strict=True)), "mean": sum(best) / len(best)}
