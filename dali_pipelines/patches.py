"""The training graph: stored patches or slices in, augmented batches out, on the CPU or on one GPU.

M modalities, R regions, D H W voxels z, y, x; slices have no D.
"""

from typing import Any

from nvidia.dali import pipeline_def

from dali_pipelines import augment
from dali_pipelines.graph import (
    GraphConfig,
    change_geometry,
    change_intensities,
    declare_parameters,
    declare_voxels,
    deliver,
    normalise,
    parameter_inputs,
)


def build_patch_pipeline(config: GraphConfig) -> Any:
    """A DALI pipeline.

    Inputs: image as stored (M, d, h, w) and label uint8 (1, d, h, w) of whatever box a sample needs; parameter_inputs.
    Outputs: image float (M, D, H, W) ((D, H, W, M) with channels_last) and regions uint8 (R, D, H, W).
    """

    # One run is computed at a time: the loader's own thread runs ahead, and only so far as it has fed.
    @pipeline_def(enable_conditionals=True, prefetch_queue_depth=1)
    def train_on_patches() -> Any:
        given = declare_parameters(parameter_inputs(config.augmentation))
        image, label = declare_voxels(config)
        image = normalise(image, given, config)
        image, label = change_geometry(image, label, given, config)
        image = change_intensities(image, given, config)
        return deliver(image, config), augment.regions(label)

    return train_on_patches(batch_size=config.batch_size, num_threads=config.num_threads, device_id=config.device_id)
