"""The 2-D training graph: axial slices in, augmented batches out, on the CPU or on one GPU.

M modalities, R regions, H W voxels y, x.
"""

from typing import Any

from nvidia.dali import fn, pipeline_def, types

from dali_pipelines import augment
from dali_pipelines.graph import GraphConfig, change_geometry, change_intensities, declare_parameters, deliver


def build_slice_pipeline(config: GraphConfig) -> Any:
    """A DALI pipeline.

    Inputs: image int16 (M, h, w) and label uint8 (1, h, w) of whatever box a sample needs; parameter_inputs.
    Outputs: image float (M, H, W), or (H, W, M) with channels_last, and regions uint8 (R, H, W).
    """

    @pipeline_def(enable_conditionals=True, prefetch_queue_depth=1)
    def train_on_slices() -> Any:
        given = declare_parameters(config)
        image = fn.external_source(name="image", dtype=types.INT16, layout="CHW", no_copy=True)
        label = fn.external_source(name="label", dtype=types.UINT8, layout="CHW", no_copy=True)
        if config.on_gpu:
            image, label = image.gpu(), label.gpu()
        image = augment.normalise(image, given["normalise_scale"], given["normalise_offset"])
        image, label = change_geometry(image, label, given, config)
        image = change_intensities(image, given, config)
        return deliver(image, config), augment.regions(label)

    return train_on_slices(batch_size=config.batch_size, num_threads=config.num_threads, device_id=config.device_id)
