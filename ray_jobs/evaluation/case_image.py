"""A case with its prediction, as figures show it.

Shapes: M modality, R region, D H W voxels (z y x).
"""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray

from dali_pipelines import Volume
from models import Decision, RegionRules, segment_regions
from storage import Region, region_masks


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaseImage:
    """One case with its prediction, for figures."""

    case_id: str
    modalities: tuple[str, ...]
    regions: tuple[Region, ...]
    image_MDHW: NDArray[np.float32]
    regions_RDHW: NDArray[np.bool_]
    probabilities_RDHW: NDArray[np.float32]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def predicted(self, decision: Decision) -> NDArray[np.bool_]:
        """The regions' masks as they are written, (R, D, H, W)."""
        rules = RegionRules(labels=tuple(region.labels for region in self.regions), **vars(decision))
        label_DHW = segment_regions(torch.from_numpy(self.probabilities_RDHW), rules, spacing_mm=self.spacing)
        return region_masks(label_DHW, self.regions).astype(bool)


def keep_image(
    volume: Volume,
    modalities: tuple[str, ...],
    regions: tuple[Region, ...],
    probabilities_RDHW: torch.Tensor,
    spacing: tuple[float, float, float],
) -> CaseImage:
    """Return the case with its prediction, on the CPU."""
    assert volume.regions_RDHW is not None
    return CaseImage(
        case_id=volume.case_id,
        modalities=modalities,
        regions=regions,
        image_MDHW=volume.image_MDHW.cpu().numpy(),
        regions_RDHW=volume.regions_RDHW.bool().cpu().numpy(),
        probabilities_RDHW=probabilities_RDHW.cpu().numpy(),
        spacing=spacing,
    )
