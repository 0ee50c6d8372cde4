"""What a training patch costs on its way from the store to the trainer, stage by stage, 3-D and 2-D.

`read_cold` a plain patch straight from the Zarr store; `fill_cache` the first use of a case through the cache;
`read_warm` a plain patch planned and cut from the cache; `gpu_feed` everything the CPU does when the graph runs on a
GPU: planned, read ahead and handed to a DALI pipeline that takes every input of the training graph; `cpu_full` and
`gpu_full` the whole training graph.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from nvidia.dali import pipeline_def

from benchmarks.report import report
from benchmarks.timing import Cost, measure
from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig, Shard
from dali_pipelines.graph import GraphConfig, declare_parameters, declare_voxels, parameter_inputs
from dali_pipelines.loader import compute_batches, labelled_infos, make_sampler, positions
from dali_pipelines.run_ahead import RunAhead
from dali_pipelines.source import Sample, SampleReader, stored_dtype
from storage import MODALITIES, CohortStore, DecodedCaseCache, open_store

GIB = 2**30

# Of the cheap stages, whose cost is the same for every patch; augmentation's depends on what was drawn.
ROUNDS = 4


@dataclass(frozen=True, kw_only=True)
class LoaderBenchmark:
    """CPU and wall milliseconds a training patch, from the store to the trainer.

    Attributes:
        store: a converted cohort, path or URL.
        patches: patches timed in each stage, after as many batches as fill the queues.
        preset: augmentation preset.
        patch_shape: of the patches, z y x.
        slice_shape: of the slices, y x.
        batch_size: patches a batch; slices come eight times as many.
        read_threads: threads that read.
        graph_threads: threads that DALI computes with.
        device: "cpu", or "cuda:N" for gpu_full as well; "auto" takes a GPU where there is one.
        json: file for the figures.
    """

    store: str
    patches: int = 48
    patch_shape: tuple[int, int, int] = (128, 128, 128)
    slice_shape: tuple[int, int] = (192, 160)
    preset: str = "nnunet"
    batch_size: int = 2
    read_threads: int = 1
    graph_threads: int = 1
    device: str = "auto"
    json: Path | None = None


def run(config: LoaderBenchmark) -> None:
    """Measure what a training patch costs from the store to the trainer, stage by stage, 3-D and 2-D."""
    store = open_store(config.store)
    volumes = SamplingConfig(
        patch_shape=config.patch_shape, global_batch_size=config.batch_size, patches_per_epoch=10_000
    )
    slices = replace(
        volumes,
        dimensions=2,
        patch_shape=config.slice_shape,
        global_batch_size=8 * config.batch_size,
        patches_per_epoch=100_000,
    )
    figures = measure_stages(store, config, volumes, patches=config.patches)
    slice_figures = measure_stages(store, config, slices, patches=8 * config.patches)
    rows: list[dict[str, Any]] = [
        {"sample": kind, "stage": stage, "cpu_ms": cost["cpu_ms"], "wall_ms": cost["wall_ms"]} | hit_rate(cost)
        for kind, stages in ((name_shape(volumes), figures), (name_shape(slices), slice_figures))
        for stage, cost in stages.items()
    ]
    report(f"Cost of a training patch, {config.preset} augmentation, {len(store.case_ids)} cases", rows, config.json)


def name_shape(sampling: SamplingConfig) -> str:
    """A patch's shape with its modalities."""
    return "x".join(str(side) for side in (len(MODALITIES), *sampling.patch_shape))


def hit_rate(cost: dict[str, float]) -> dict[str, str]:
    """The cache's hit rate as a column."""
    return {"hits": f"{100 * cost['hit_rate']:.0f} %" if "hit_rate" in cost else ""}


def measure_stages(
    store: CohortStore, config: LoaderBenchmark, sampling: SamplingConfig, *, patches: int
) -> dict[str, dict[str, float]]:
    """Stage -> {cpu_ms, wall_ms}, and hit_rate where the cache is too small."""
    figures: dict[str, dict[str, float]] = {}
    infos = labelled_infos_of(store)
    # int16 images, uint8 labels, and a little for the files' checksums
    case_bytes = [(2 * len(MODALITIES) + 1) * math.prod(info.shape) + 64 for info in infos]
    quarter = max(sum(case_bytes) // 4, max(case_bytes))
    with tempfile.TemporaryDirectory() as folder:
        cache = DecodedCaseCache(store, Path(folder), max_bytes=100 * GIB)
        figures["read_cold"] = read_cold(store, sampling, patches=min(patches, 48)).to_json()
        figures["fill_cache"] = fill_cache(cache, [info.case_id for info in infos]).to_json()
        figures["read_warm"] = read_warm(cache, sampling, patches=patches).to_json()
        figures["gpu_feed"] = gpu_feed(cache, config, sampling, patches=patches).to_json()
        figures["cpu_full"] = full(cache, config, sampling, "cpu", patches=patches).to_json()
        gpu = "cuda:0" if config.device == "auto" and torch.cuda.is_available() else config.device
        if gpu.startswith("cuda"):
            cost = full(cache, config, sampling, gpu, patches=patches)
            figures["gpu_full"] = cost.to_json() | {"patches_per_second": round(1000 / cost.wall_ms, 1)}
    for patches_per_case in (1, 4):
        with tempfile.TemporaryDirectory() as folder:
            small = DecodedCaseCache(store, Path(folder), max_bytes=quarter)
            several = replace(sampling, patches_per_case=patches_per_case)
            cost = gpu_feed(small, config, several, patches=patches, rounds=1)
            name = "gpu_feed_quarter_cache" + ("" if patches_per_case == 1 else f"_{patches_per_case}_per_case")
            figures[name] = cost.to_json() | {"hit_rate": round(small.hits / (small.hits + small.misses), 3)}
    return figures


def labelled_infos_of(store: CohortStore) -> tuple[Any, ...]:
    """The records of the cases that a training can use."""
    return tuple(info for info in store.infos() if info.labelled)


def open_reader(cache: DecodedCaseCache, preset: str, sampling: SamplingConfig) -> SampleReader:
    """What PatchLoader reads with; the preset decides how much more than the patch a rotation reads."""
    infos = labelled_infos(cache, [info.case_id for info in labelled_infos_of(cache.store)])
    sampler = make_sampler(cache, infos, sampling, AUGMENTATION_PRESETS[preset], "zscore")
    return SampleReader(
        cases=cache,
        sampler=sampler,
        dimensions=sampling.dimensions,
        dtype=stored_dtype(infos),
        on_bad_case="raise",
    )


def read_cold(store: CohortStore, sampling: SamplingConfig, *, patches: int) -> Cost:
    """A planned patch straight from the compressed store, without a cache."""
    with tempfile.TemporaryDirectory() as folder:
        planner = open_reader(DecodedCaseCache(store, Path(folder), max_bytes=100 * GIB), "none", sampling)
    plans = [planner.sampler.plan(0, index) for index in range(patches)]

    def read_all() -> None:
        for plan in plans:
            store.read_patch(plan.case_id, plan.read_origin, plan.read_shape)

    return measure(read_all, patches=patches, rounds=2)


def fill_cache(cache: DecodedCaseCache, case_ids: Sequence[str]) -> Cost:
    """Each case's first use: decoded and written as a file. The cost is a case's, not a patch's."""

    def fill() -> None:
        for case_id in case_ids:
            cache.read_case(case_id)

    return measure(fill, patches=len(case_ids))


def read_warm(cache: DecodedCaseCache, sampling: SamplingConfig, *, patches: int) -> Cost:
    """Planned and cut from cached cases."""
    reader = open_reader(cache, "none", sampling)

    def read_all(first: int) -> Callable[[], None]:
        def work() -> None:
            for index in range(first, first + patches):
                reader.buffers.give_back(reader.read(0, index).buffer)

        return work

    read_all(patches)()  # maps the cache's files and the store's coordinates
    return measure(read_all(0), patches=patches, rounds=ROUNDS)


def gpu_feed(
    cache: DecodedCaseCache, config: LoaderBenchmark, sampling: SamplingConfig, *, patches: int, rounds: int = ROUNDS
) -> Cost:
    """Planned, read ahead and delivered through a DALI pipeline, with the loader's own threads."""
    reader = open_reader(cache, config.preset, sampling)
    deliver = make_delivery(config, sampling, integers=reader.dtype().dtype.kind == "i")
    pool = ThreadPoolExecutor(config.read_threads)
    batch_size = sampling.global_batch_size
    numbers = positions(sampling, Shard(), 0, 0)
    batches = compute_batches(reader, numbers, pool, deliver, batch_size=batch_size, ahead=2 * batch_size)
    feed = RunAhead(batches, ready=2, name="patch-feed")
    try:
        for _ in range(max(4, len(cache.store.case_ids) // batch_size)):
            feed.next()
        steps = patches // batch_size
        return measure(lambda: [feed.next() for _ in range(steps)], patches=steps * batch_size, rounds=rounds)
    finally:
        feed.stop()


def make_delivery(
    config: LoaderBenchmark, sampling: SamplingConfig, *, integers: bool
) -> Callable[[Sequence[Sample]], None]:
    """A DALI pipeline that takes all that the training graph takes, and does nothing with it."""
    augmentation = AUGMENTATION_PRESETS[config.preset]
    graph = GraphConfig(
        augmentation=augmentation,
        size=sampling.patch_shape,
        batch_size=sampling.global_batch_size,
        modalities=4,
        integers=integers,
    )
    names = tuple(parameter_inputs(augmentation))

    @pipeline_def(prefetch_queue_depth=1)
    def deliver_only() -> Any:
        image, label = declare_voxels(graph)
        # Their shapes alone come out: outputs are gathered into fresh memory, which the way to a GPU does not take.
        # There the buffers that the reading threads filled are page-locked, and the GPU fetches the voxels itself.
        return image.shape(), label.shape(), *declare_parameters(parameter_inputs(augmentation)).values()

    pipeline = deliver_only(batch_size=graph.batch_size, num_threads=config.graph_threads, device_id=None)
    pipeline.build()

    def deliver(samples: Sequence[Sample]) -> None:
        pipeline.feed_input("image", [sample.image for sample in samples])
        pipeline.feed_input("label", [sample.label for sample in samples])
        for name in names:
            pipeline.feed_input(name, [sample.plan.parameters[name] for sample in samples])
        pipeline.run()

    return deliver


def full(
    cache: DecodedCaseCache, config: LoaderBenchmark, sampling: SamplingConfig, device: str, *, patches: int
) -> Cost:
    """The whole loader, as a trainer that does nothing else would see it."""
    with open_loader(cache, config, sampling, device) as batches:
        for _ in islice(batches, 3):
            pass
        steps = patches // sampling.global_batch_size
        return measure(lambda: list_without_keeping(islice(batches, steps)), patches=steps * sampling.global_batch_size)


@contextmanager
def open_loader(
    cache: DecodedCaseCache, config: LoaderBenchmark, sampling: SamplingConfig, device: str
) -> Iterator[Iterator[Any]]:
    """Batches of a PatchLoader."""
    with PatchLoader(
        cache,
        [info.case_id for info in labelled_infos_of(cache.store)],
        sampling=sampling,
        augmentation=AUGMENTATION_PRESETS[config.preset],
        device=device,
        dtype="float16" if device != "cpu" else "float32",
        read_threads=config.read_threads,
        graph_threads=config.graph_threads,
    ) as loader:
        yield iter(loader)


def list_without_keeping(batches: Iterator[Any]) -> None:
    """Ask for each batch and drop it, as a trainer does."""
    for _ in batches:
        pass
