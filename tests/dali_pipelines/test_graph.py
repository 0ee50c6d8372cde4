"""The GPU's graph, checked without a GPU: it serialises, and all it puts on the GPU exists there."""

import sys
from pathlib import Path

import pytest
from nvidia.dali.backend import RegisteredCPUOps, RegisteredGPUOps

from dali_pipelines import AUGMENTATION_PRESETS
from dali_pipelines.graph import NORMALISE, GraphConfig, build_patch_pipeline
from dali_pipelines.volumes import build_volume_pipeline

REGIONS = ((1, 2, 3), (1, 3), (3,))


def gpu_config(preset: str, size: tuple[int, ...], *, skull_stripped: bool = True) -> GraphConfig:
    return GraphConfig(
        augmentation=AUGMENTATION_PRESETS[preset],
        size=size,
        batch_size=2,
        modalities=4,
        integers=True,
        regions=REGIONS,
        skull_stripped=skull_stripped,
        on_gpu=True,
        float16=True,
        channels_last=True,
    )


def operators(pipeline: object) -> dict[str, set[str]]:
    """Device -> names of the operators that the serialised graph places there."""
    assert pipeline.serialize()  # type: ignore[attr-defined]
    found: dict[str, set[str]] = {"cpu": set(), "gpu": set()}
    for node in pipeline._ops:  # type: ignore[attr-defined]
        schema = node._op.schema
        found[node._op.device].add("__".join([*schema.ModulePath(), schema.OperatorName()]))
    return found


@pytest.mark.parametrize("size", [(16, 16, 16), (16, 16)], ids=["patches", "slices"])
@pytest.mark.parametrize(
    ("preset", "skull_stripped"), [*((preset, True) for preset in sorted(AUGMENTATION_PRESETS)), ("nnunet", False)]
)
def test_every_operator_of_the_gpu_graph_exists_there(
    preset: str,
    size: tuple[int, ...],
    skull_stripped: bool,  # noqa: FBT001
) -> None:
    placed = operators(build_patch_pipeline(gpu_config(preset, size, skull_stripped=skull_stripped)))
    assert placed["gpu"] <= set(RegisteredGPUOps())
    assert placed["cpu"] <= set(RegisteredCPUOps())
    # Voxels are worked on there, and nothing but small inputs, their parts and conditions stays behind.
    assert {"LookupTable", "_ArithmeticGenericOp", "Flip"} <= placed["gpu"]
    assert placed["cpu"] <= {"ExternalSource", "_TensorSubscript", "_conditional__Split", "ExpandDims", "Constant"}


def test_the_full_graph_holds_the_full_list() -> None:
    placed = operators(build_patch_pipeline(gpu_config("nnunet", (16, 16, 16))))
    assert {"WarpAffine", "Resize", "GaussianBlur", "Slice", "reductions__StdDev", "Flip"} <= placed["gpu"]


def test_an_operation_of_probability_0_is_left_out() -> None:
    placed = operators(build_patch_pipeline(gpu_config("none", (16, 16, 16))))
    assert placed["gpu"].isdisjoint({"WarpAffine", "Resize", "GaussianBlur", "Slice", "reductions__Mean"})


@pytest.mark.parametrize("skull_stripped", [True, False], ids=["brains", "heads"])
def test_the_volume_graph_serialises_for_the_gpu(skull_stripped: bool) -> None:  # noqa: FBT001
    placed = operators(build_volume_pipeline(gpu_config("none", (1, 1, 1), skull_stripped=skull_stripped)))
    assert placed["gpu"] <= set(RegisteredGPUOps())
    assert NORMALISE.keys() == {"normalise_scale", "normalise_offset"}


def test_a_built_graph_leaves_no_file_in_the_temp_folder() -> None:
    """What DALI leaves there it removes at a process's end, which a worker that Ray kills does not come to."""
    build_volume_pipeline(gpu_config("none", (1, 1, 1)))
    build_patch_pipeline(gpu_config("none", (16, 16, 16)))
    loaded = [module.__spec__ for name, module in sys.modules.items() if "autograph_generated" in name]
    assert loaded  # else there was nothing to remove
    assert [file for spec in loaded for file in (spec.origin, spec.cached) if Path(file).exists()] == []
