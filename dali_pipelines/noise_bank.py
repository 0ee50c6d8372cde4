"""Gaussian noise as a pure function of the sample: windows into one fixed bank of normal deviates.

DALI's own noise cannot do this: its `seed` refuses per-sample values and its state is the first sample's, so its noise
changes with the batch. A window's place, mirrored axes and sign come from the sample's own random numbers instead.
Within a patch the deviates are as independent as the generator made them, since every voxel reads another of them.
M modalities, D H W voxels.
"""

import numpy as np
from numpy.typing import NDArray

# Voxels of play along each axis: (32 + 1)^3 places, 8 mirrorings and 2 signs are half a million different noises.
BANK_SLACK = 32
_BANK_SEED = 20_26


def make_noise_bank(modalities: int, patch_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Standard normal deviates, (M, D + slack, H + slack, W + slack), or without D for slices; the same every time."""
    shape = (modalities, *(side + BANK_SLACK for side in patch_shape))
    return np.random.default_rng(_BANK_SEED).standard_normal(shape, dtype=np.float32)
