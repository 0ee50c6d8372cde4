"""Zarr stores to device batches, through NVIDIA DALI. Imports storage; never Ray, never models."""

from dali_pipelines.augmentation import AUGMENTATION_PRESETS, AugmentationConfig
from dali_pipelines.delivery import Batch
from dali_pipelines.loader import PatchLoader
from dali_pipelines.sampling import PatchPlan, SamplingConfig
from dali_pipelines.shard import Shard
from dali_pipelines.source import CaseReadError, OnBadCase, Replacement
from dali_pipelines.volumes import Volume, VolumeLoader

__all__ = [
    "AUGMENTATION_PRESETS",
    "AugmentationConfig",
    "Batch",
    "CaseReadError",
    "OnBadCase",
    "PatchLoader",
    "PatchPlan",
    "Replacement",
    "SamplingConfig",
    "Shard",
    "Volume",
    "VolumeLoader",
]
