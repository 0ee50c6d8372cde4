"""A network as one ONNX file: logits from an image of any suitable sides, and in its metadata all that is around them.

Letters in names: B batch, M scan, D H W voxels z y x.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch

from models import UNetConfig
from ray_jobs.exchange.plain_network import FinestLogits, sample_image, without_torchs_warnings
from storage import InputError

OPSET = 18
FILE, CARD = "model.onnx", "model_card.md"
RUNS = (
    f"With any runtime that takes ONNX of opset {OPSET}: `image` (batch, scan, z, y, x; of a 2-D network without z), "
    "float32, normalised; `logits` (batch, region, …).",
    "Batch and sides are free; the file's metadata has this page's numbers as JSON.",
)


def encode(network: FinestLogits, config: UNetConfig, description: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the file by its name. Raises InputError where the packages that write it are not installed, and for
    a network that torch cannot write.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            'wanted the packages that write ONNX, found none; run pip install --constraint constraints.txt ".[onnx]"'
        ) from None
    if config.block == "residual" and config.stem_stride > 1:
        raise InputError(
            "wanted a network that torch 2.13 writes as ONNX, this one has residual blocks behind a strided stem, over "
            "whose sides it stumbles; give it as monai"
        )
    axes = dict(enumerate(["batch", "z", "y", "x"] if config.dimensions == 3 else ["batch", "y", "x"]))
    with without_torchs_warnings():
        program = torch.onnx.export(
            network,
            (sample_image(config),),
            dynamo=True,
            dynamic_shapes=({axis + (axis > 0): name for axis, name in axes.items()},),
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # each has the lines of our code that it came from, with their paths
    for name, value in description.items():
        program.model.metadata_props[name] = json.dumps(value)
    return {FILE: program.model_proto.SerializeToString()}
