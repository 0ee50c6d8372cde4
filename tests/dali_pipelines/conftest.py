"""A small cohort in memory with the interface of storage.DecodedCaseCache, so that tests can count and break reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock, current_thread
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def

from dali_pipelines import AugmentationConfig
from storage import CohortStore, convert_case, create_store, find_cases
from storage.labels.conventions import MODALITIES
from storage.labels.tasks import GLI_2021_TASK, Task

Shape = tuple[int, int, int]


class Arrays(NamedTuple):
    image_MDHW: NDArray[np.int16]
    label_DHW: NDArray[np.uint8] | None


class Array(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Info:
    case_id: str
    shape: Shape
    labelled: bool
    digest: str = "0" * 64
    modalities: tuple[str, ...]
    arrays: dict[str, Array]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]


@dataclass
class MemoryCache:
    """Cases held in memory; counts its reads, and refuses the cases in `broken`. A store for a real cache, too."""

    cases: dict[str, Arrays]
    broken: set[str] = field(default_factory=set)
    reads: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)  # the thread of each read
    uri: str = "memory"
    task: Task = GLI_2021_TASK
    lock: Lock = field(default_factory=Lock)

    @property
    def store(self) -> "MemoryCache":
        return self

    def infos(self) -> tuple[Info, ...]:
        return tuple(self.info(case_id) for case_id in self.cases)

    def info(self, case_id: str) -> Info:
        image, label = self.cases[case_id]
        brain = image[:, (image != 0).any(axis=0) | (not self.task.skull_stripped)].astype(np.float64)
        return Info(
            case_id=case_id,
            shape=image.shape[1:],
            labelled=label is not None,
            modalities=MODALITIES,
            arrays={"image": Array(str(image.dtype), image.shape), "label": Array("uint8", image.shape[1:])},
            mean=tuple(brain.mean(axis=1)),
            std=tuple(brain.std(axis=1)),
            minimum=tuple(brain.min(axis=1)),
            maximum=tuple(brain.max(axis=1)),
        )

    def foreground(self, case_id: str) -> dict[str, NDArray[np.int32]]:
        label = self.cases[case_id].label_DHW
        assert label is not None
        return {
            region.name: np.argwhere(np.isin(label, region.labels)).astype(np.int32) for region in self.task.regions
        }

    def read_case(self, case_id: str) -> Arrays:
        with self.lock:
            self.reads.append(case_id)
            self.readers.append(current_thread().name)
        if case_id in self.broken:
            raise OSError("checksum of a chunk does not match")
        return self.cases[case_id]


def make_case(number: int, shape: Shape) -> Arrays:
    """Smooth, asymmetric intensities inside an ellipsoid, and nested tumour labels off its centre."""
    rng = np.random.default_rng([7, number])
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    brain = z**2 + y**2 + x**2 < 1
    planes = [100 + 40 * np.sin(3 * z + m) + 30 * y * (m + 1) + 20 * x + number for m in range(4)]
    image = np.stack([np.where(brain, plane + rng.normal(0, 4, shape), 0) for plane in planes]).astype(np.int16)
    distance = np.sqrt((z - 0.3) ** 2 + (y + 0.2) ** 2 + (x - 0.2) ** 2)
    label = np.select([distance < 0.15, distance < 0.3, distance < 0.45], [1, 3, 2], 0) * brain
    return Arrays(image, label.astype(np.uint8))


@pytest.fixture
def make_cache() -> Callable[..., MemoryCache]:
    """make_cache(count, shape) -> MemoryCache of that many cases."""

    def make(count: int = 5, shape: Shape = (20, 24, 22)) -> MemoryCache:
        return MemoryCache({f"case_{number}": make_case(number, shape) for number in range(count)})

    return make


@pytest.fixture(scope="session")
def compute() -> Callable[..., list[list[NDArray[Any]]]]:
    """compute(graph, inputs, layouts) -> for each output of `graph(**nodes)` the samples; inputs: name -> samples."""

    def run(
        graph: Callable[..., Any], inputs: Mapping[str, Sequence[Any]], layouts: Mapping[str, str]
    ) -> list[list[NDArray[Any]]]:
        batch_size = len(next(iter(inputs.values())))

        @pipeline_def(
            enable_conditionals=True, batch_size=batch_size, num_threads=1, device_id=None, prefetch_queue_depth=1
        )
        def one_operation() -> Any:
            return graph(**{name: fn.external_source(name=name, layout=layouts.get(name)) for name in inputs})

        pipeline = one_operation()
        pipeline.build()
        for name, samples in inputs.items():
            pipeline.feed_input(name, [np.array(sample, order="C") for sample in samples])
        return [[np.array(sample) for sample in output] for output in pipeline.run()]

    return run


@pytest.fixture(scope="session")
def everything() -> AugmentationConfig:
    """Every operation with probability one half, so that every batch mixes chosen and spared samples."""
    return AugmentationConfig(
        rotation_probability=0.5,
        scale_probability=0.5,
        noise_probability=0.5,
        blur_probability=0.5,
        brightness_probability=0.5,
        contrast_probability=0.5,
        low_resolution_probability=0.5,
        inverted_gamma_probability=0.5,
        gamma_probability=0.5,
    )


@pytest.fixture(scope="session")
def phantom_store(phantom_source: Any, tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    """Three synthetic cases, converted."""
    store = create_store(tmp_path_factory.mktemp("store") / "phantom.zarr")
    for case in find_cases(phantom_source).cases[:3]:
        convert_case(case, store)
    store.rebuild_index()
    return store
