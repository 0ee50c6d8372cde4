"""Where each region is: a sample of its voxels, so that patches can be centred on it without reading the label.

Shapes: D H W voxels z y x of the stored grid, R region, N sampled voxel.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from storage.labels.tasks import Region

SAMPLES = 4096
_ABSENT = -1


def sample_foreground(
    label_DHW: NDArray[np.uint8], case_id: str, regions: Sequence[Region]
) -> tuple[NDArray[np.int16], dict[str, int]]:
    """Up to SAMPLES voxels of each region, drawn without replacement, the same for the same case every time.

    Returns int16 [R, N, 3] of z y x with rows of -1 after the last, and how many voxels each region has in all.
    """
    seed = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "little")
    random = np.random.default_rng(seed)
    inside = np.flatnonzero(label_DHW)
    labels = label_DHW.ravel()[inside]
    chosen: list[NDArray[np.int16]] = []
    totals: dict[str, int] = {}
    for region in regions:
        voxels: NDArray[np.signedinteger] = inside[np.isin(labels, region.labels)]
        totals[region.name] = len(voxels)
        if len(voxels) > SAMPLES:
            voxels = voxels[np.sort(random.choice(len(voxels), SAMPLES, replace=False))]
        chosen.append(np.stack(np.unravel_index(voxels, label_DHW.shape), axis=1).astype(np.int16))
    rows = max(1, *(len(voxels) for voxels in chosen))
    padded = np.full((len(regions), rows, 3), _ABSENT, dtype=np.int16)
    for index, voxels in enumerate(chosen):
        padded[index, : len(voxels)] = voxels
    return padded, totals


def unpack_foreground(padded_RN3: NDArray[np.int16], names: Sequence[str]) -> dict[str, NDArray[np.int32]]:
    """The stored array as one int32 [N, 3] of z y x for each of the regions with these names."""
    return {name: rows[rows[:, 0] != _ABSENT].astype(np.int32) for name, rows in zip(names, padded_RN3, strict=True)}
