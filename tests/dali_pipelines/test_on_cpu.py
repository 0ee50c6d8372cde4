"""What a CPU computes with NumPy against the graph that a GPU gets, which DALI runs on the CPU here.

Sides are odd, the rotation and the zoom those of benchmarks/gpu_checks/ties.py: no place lies on the border of two
voxels, so that labels have to be equal, voxel for voxel. Images may differ by rounding.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu_checks.parity import OPERATIONS, WITHOUT_BORDERS, chosen
from dali_pipelines import Batch, SamplingConfig
from dali_pipelines.delivery import Delivery
from dali_pipelines.delivery_on_cpu import DeliveryOnCpu
from dali_pipelines.graph import GraphConfig
from dali_pipelines.source import SampleReader, labelled_infos, make_sampler
from storage.labels.tasks import TASKS

INSIDE, BEYOND = (9, 13, 11), (31, 37, 43)  # of a case of 20 x 24 x 22

# Of intensities whose standard deviation is 1. A place that is worked out in another order is 1/100,000 voxel off.
TOLERANCE, OF_A_WARP = 2e-5, 5e-4


def compute_both(
    cache: Any, augmentation: Any, size: tuple[int, ...], *, samples: int = 4, dtype: type = np.int16
) -> tuple[Batch, Batch]:
    """The same samples by DALI and by NumPy."""
    sampling = SamplingConfig(dimensions=len(size), patch_shape=size, seed=5)  # type: ignore[arg-type]
    sampler = make_sampler(cache, labelled_infos(cache, list(cache.cases)), sampling, augmentation, "zscore")
    reader = SampleReader(cases=cache, sampler=sampler, dimensions=len(size), dtype=dtype, on_bad_case="raise")
    config = GraphConfig(
        augmentation=augmentation,
        size=size,
        batch_size=samples,
        modalities=4,
        integers=dtype is np.int16,
        regions=((1, 2, 3), (1, 3), (3,)),
        skull_stripped=cache.task.skull_stripped,
    )
    read = [reader.read(0, index) for index in range(samples)]
    return Delivery(config).run(read), DeliveryOnCpu(config).run(read)


def assert_the_same(by_dali: Batch, by_numpy: Batch, tolerance: float) -> None:
    assert torch.equal(by_dali.regions, by_numpy.regions)
    assert by_numpy.regions.any() and by_numpy.image.any()
    torch.testing.assert_close(by_numpy.image, by_dali.image, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dimensions", [3, 2], ids=["patches", "slices"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_alone(make_cache: Callable[..., Any], operation: str, dimensions: int) -> None:
    by_dali, by_numpy = compute_both(make_cache(2), chosen([operation], 1.0), INSIDE[-dimensions:])
    assert any(plan.parameters[OPERATIONS[operation]].any() for plan in by_numpy.plans)
    assert_the_same(by_dali, by_numpy, OF_A_WARP if operation == "rotation" else TOLERANCE)


@pytest.mark.parametrize("dimensions", [3, 2], ids=["patches", "slices"])
@pytest.mark.parametrize("skull_stripped", [True, False], ids=["brains", "heads"])
@pytest.mark.parametrize("operation", ["none", "rotation", "scale"])
def test_beyond_the_case(
    make_cache: Callable[..., Any], operation: str, dimensions: int, *, skull_stripped: bool
) -> None:
    """Patches larger than the case: what is filled in is background's 0, or the head's air."""
    cache = make_cache(2)
    cache.task = TASKS["gli-2021" if skull_stripped else "men-rt"]
    augmentation = replace(
        WITHOUT_BORDERS, mirror_probability=0.5, **{f"{operation}_probability": 1.0} if operation != "none" else {}
    )
    by_dali, by_numpy = compute_both(cache, augmentation, BEYOND[-dimensions:])
    assert_the_same(by_dali, by_numpy, OF_A_WARP)


def test_all_together_on_floats(make_cache: Callable[..., Any]) -> None:
    cache = make_cache(2)
    for name, (image, label) in cache.cases.items():
        cache.cases[name] = type(cache.cases[name])(image.astype(np.float32), label)
    by_dali, by_numpy = compute_both(cache, chosen(OPERATIONS, 0.5), INSIDE, samples=12, dtype=np.float32)
    # A power is steep at the darkest voxels: what a warp found there may be further off.
    assert torch.equal(by_dali.regions, by_numpy.regions)
    far = (by_dali.image - by_numpy.image).abs() > OF_A_WARP
    assert far.float().mean() < 1e-3
