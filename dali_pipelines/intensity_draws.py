"""The random numbers of the intensity augmentations, one small draw each: name of a graph input -> its value.

Every draw takes the same count of numbers from the generator whatever it chooses, so that changing one
augmentation's probability leaves the others' numbers as they were. M modalities.
"""

import numpy as np
from numpy.typing import NDArray

from dali_pipelines.augmentation import AugmentationConfig, Range

Parameters = dict[str, NDArray[np.generic]]


def draw_intensities(
    rng: np.random.Generator, config: AugmentationConfig, *, modalities: int, patch_shape: tuple[int, ...], slack: int
) -> Parameters:
    """All intensity parameters of one sample. `patch_shape` (D, H, W) or (H, W); `slack`: see noise_bank.py."""
    parameters: Parameters = {}
    parameters |= draw_noise(rng, config, modalities=modalities, axes=len(patch_shape), slack=slack)
    parameters |= draw_blur(rng, config, modalities=modalities, axes=len(patch_shape))
    parameters |= draw_factor(rng, config, "brightness", config.brightness_range, modalities)
    parameters |= draw_factor(rng, config, "contrast", config.contrast_range, modalities)
    parameters |= draw_low_resolution(rng, config, modalities=modalities, patch_shape=patch_shape)
    parameters |= draw_factor(rng, config, "inverted_gamma", config.gamma_range, modalities)
    parameters |= draw_factor(rng, config, "gamma", config.gamma_range, modalities)
    return parameters


def draw_noise(
    rng: np.random.Generator, config: AugmentationConfig, *, modalities: int, axes: int, slack: int
) -> Parameters:
    """Standard deviation (M,), one for all (signed: the bank may be used upside down); where in it, mirrored how."""
    chosen = rng.random() < config.noise_probability
    sigma = config.noise_sigma(rng.uniform(*config.noise_range)) * (1 if rng.random() < 0.5 else -1)
    anchor = rng.integers(0, slack + 1, size=axes)
    mirror = rng.random(axes) < 0.5
    return {
        "noise_on": np.array(chosen),
        "noise_sigma": np.full(modalities, sigma, np.float32),
        "noise_anchor": np.array([0, *anchor], np.int32),
        "noise_mirror": mirror.astype(np.int32),
    }


def draw_blur(rng: np.random.Generator, config: AugmentationConfig, *, modalities: int, axes: int) -> Parameters:
    """Which modalities, and their standard deviations (M, axes) in voxels."""
    chosen = rng.random() < config.blur_probability
    of_modality = rng.random(modalities) < config.blur_modality_probability
    sigma = rng.uniform(*config.blur_sigma, size=(modalities, axes))
    on = of_modality & chosen
    return {"blur_on": np.array(on.any()), "blur_modality": on, "blur_sigma": sigma.astype(np.float32)}


def draw_low_resolution(
    rng: np.random.Generator, config: AugmentationConfig, *, modalities: int, patch_shape: tuple[int, ...]
) -> Parameters:
    """Which modalities, and the coarse grid's shape (M, axes), at least one voxel an axis."""
    chosen = rng.random() < config.low_resolution_probability
    of_modality = rng.random(modalities) < config.low_resolution_modality_probability
    scale = rng.uniform(*config.low_resolution_range, size=(modalities, 1))
    shape = np.maximum(np.rint(scale * np.array(patch_shape)), 1)
    on = of_modality & chosen
    return {
        "low_resolution_on": np.array(on.any()),
        "low_resolution_modality": on,
        "low_resolution_shape": shape.astype(np.float32),
    }


def draw_factor(
    rng: np.random.Generator, config: AugmentationConfig, name: str, limits: Range, modalities: int
) -> Parameters:
    """A factor a modality (M,), or the same for all."""
    chosen = rng.random() < getattr(config, f"{name}_probability")
    below = rng.random(modalities) < 0.5
    position = rng.random(modalities)
    low, high = limits
    if config.factors_balanced and low < 1 < high:
        factors = np.where(below, low + (1 - low) * position, 1 + (high - 1) * position)
    else:
        factors = low + (high - low) * position
    if not config.factors_per_modality:
        factors = np.full(modalities, factors[0])
    return {f"{name}_on": np.array(chosen), name: factors.astype(np.float32)}


def draw_shift(rng: np.random.Generator, config: AugmentationConfig, modalities: int) -> NDArray[np.float32]:
    """What is added to each modality's normalised intensities (M,): 0 unless chosen."""
    chosen = rng.random() < config.shift_probability
    return (rng.uniform(*config.shift_range, size=modalities) * chosen).astype(np.float32)


def draw_kept(rng: np.random.Generator, probability: float, modalities: int) -> NDArray[np.float32]:
    """1 for each modality that a sample keeps, else 0, (M,): all, or with this probability any smaller set of them."""
    chosen = modalities > 1 and rng.random() < probability
    bits = int(rng.integers(1, (1 << modalities) - 1)) if chosen else (1 << modalities) - 1
    return np.array([bits >> m & 1 for m in range(modalities)], np.float32)
