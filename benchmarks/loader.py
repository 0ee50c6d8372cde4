"""What a training patch costs from the cache to the trainer, stage by stage, 3-D and 2-D.

`gpu_feed` everything the CPU does when the graph runs on a GPU: planned, read ahead and handed to a DALI pipeline that
takes every input of the training graph, from a cache of all cases and from one that holds a quarter of them; `cpu_full`
and `gpu_full` the whole training graph. What reading alone costs: store_reads.py.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from nvidia.dali import pipeline_def

from benchmarks.cost import Cost, time_patches
from benchmarks.report import report
from benchmarks.settings import LoaderBenchmark
from benchmarks.stores import labelled_cases, open_cohort
from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig, Shard
from dali_pipelines.graph import GraphConfig, declare_parameters, declare_voxels, parameter_inputs
from dali_pipelines.loader import compute_batches
from dali_pipelines.run_ahead import RunAhead
from dali_pipelines.shard import positions
from dali_pipelines.source import Sample, SampleReader, labelled_infos, make_sampler, stored_dtype
from storage import CohortStore, DecodedCaseCache, open_store

AUGMENTATION = AUGMENTATION_PRESETS["nnunet"]
# Of the cheap stage, whose cost is the same for every patch; augmentation's depends on what was drawn.
ROUNDS = 4


def run(config: LoaderBenchmark) -> None:
    """Measure every stage with patches, then with eight times as many slices."""
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
    rows = [
        {"sample": "x".join(map(str, (len(store.settings.modalities), *sampling.patch_shape))), **row}
        for sampling, patches in ((volumes, config.patches), (slices, 8 * config.patches))
        for row in measure_stages(store, config, sampling, patches=patches)
    ]
    report(f"Cost of a training patch, nnunet augmentation, {len(store.case_ids)} cases", rows, config.json)


def measure_stages(
    store: CohortStore, config: LoaderBenchmark, sampling: SamplingConfig, *, patches: int
) -> list[dict[str, Any]]:
    """A row a stage; hits: the share of patches whose case a cache had that is too small."""
    rows: list[dict[str, Any]] = []

    def add(stage: str, cost: Cost, hits: str = "") -> None:
        rows.append({"stage": stage, **cost.milliseconds(), "hits": hits})

    with tempfile.TemporaryDirectory() as folder:
        cache = open_cohort(store.uri, Path(folder))
        add("gpu_feed", measure_feed(cache, config, sampling, patches=patches))
        add("cpu_full", measure_loader(cache, config, sampling, "cpu", patches=patches))
        gpu = "cuda:0" if config.device == "auto" and torch.cuda.is_available() else config.device
        if gpu.startswith("cuda"):
            add("gpu_full", measure_loader(cache, config, sampling, gpu, patches=patches))
    # int16 images, uint8 labels, and a little for the files' checksums
    layers = 2 * len(store.settings.modalities) + 1
    case_bytes = [layers * math.prod(info.shape) + 64 for info in store.infos() if info.labelled]
    quarter = max(sum(case_bytes) // 4, max(case_bytes))
    for patches_per_case, name in ((1, "gpu_feed_quarter_cache"), (4, "gpu_feed_quarter_cache_4_per_case")):
        with tempfile.TemporaryDirectory() as folder:
            small = DecodedCaseCache(store, Path(folder), max_bytes=quarter)
            several = replace(sampling, patches_per_case=patches_per_case)
            cost = measure_feed(small, config, several, patches=patches, rounds=1)
            add(name, cost, hits=f"{100 * small.hits / (small.hits + small.misses):.0f} %")
    return rows


def measure_feed(
    cache: DecodedCaseCache, config: LoaderBenchmark, sampling: SamplingConfig, *, patches: int, rounds: int = ROUNDS
) -> Cost:
    """Planned, read ahead and delivered through a DALI pipeline, with the loader's own threads."""
    reader = open_reader(cache, sampling)
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
        return time_patches(lambda: [feed.next() for _ in range(steps)], patches=steps * batch_size, rounds=rounds)
    finally:
        feed.stop()


def open_reader(cache: DecodedCaseCache, sampling: SamplingConfig) -> SampleReader:
    """What PatchLoader reads with."""
    infos = labelled_infos(cache, labelled_cases(cache.store))
    sampler = make_sampler(cache, infos, sampling, AUGMENTATION, "zscore")
    return SampleReader(
        cases=cache,
        sampler=sampler,
        dimensions=sampling.dimensions,
        dtype=stored_dtype(infos),
        on_bad_case="raise",
    )


def make_delivery(
    config: LoaderBenchmark, sampling: SamplingConfig, *, integers: bool
) -> Callable[[Sequence[Sample]], None]:
    """A DALI pipeline that takes all that the training graph takes, and does nothing with it."""
    graph = GraphConfig(
        regions=(),  # nothing is done with them here
        augmentation=AUGMENTATION,
        size=sampling.patch_shape,
        batch_size=sampling.global_batch_size,
        modalities=4,
        integers=integers,
    )
    names = tuple(parameter_inputs(AUGMENTATION))

    @pipeline_def(prefetch_queue_depth=1)
    def deliver_only() -> Any:
        image, label = declare_voxels(graph)
        # Their shapes alone come out: outputs are gathered into fresh memory, which the way to a GPU does not take.
        # There the buffers that the reading threads filled are page-locked, and the GPU fetches the voxels itself.
        return image.shape(), label.shape(), *declare_parameters(parameter_inputs(AUGMENTATION)).values()

    pipeline = deliver_only(batch_size=graph.batch_size, num_threads=config.graph_threads, device_id=None)
    pipeline.build()

    def deliver(samples: Sequence[Sample]) -> None:
        pipeline.feed_input("image", [sample.image for sample in samples])
        pipeline.feed_input("label", [sample.label for sample in samples])
        for name in names:
            pipeline.feed_input(name, [sample.plan.parameters[name] for sample in samples])
        pipeline.run()

    return deliver


def measure_loader(
    cache: DecodedCaseCache,
    config: LoaderBenchmark,
    sampling: SamplingConfig,
    device: str,
    *,
    patches: int,
    case_ids: Sequence[str] | None = None,
) -> Cost:
    """The whole loader over `case_ids` (all labelled), as a trainer that does nothing else would see it."""
    with PatchLoader(
        cache,
        labelled_cases(cache.store) if case_ids is None else case_ids,
        sampling=sampling,
        augmentation=AUGMENTATION,
        device=device,
        dtype="float16" if device != "cpu" else "float32",
        read_threads=config.read_threads,
        graph_threads=config.graph_threads,
    ) as loader:
        batches = iter(loader)
        steps = patches // sampling.global_batch_size

        def take(count: int) -> None:
            for _ in islice(batches, count):
                pass  # dropped, as a trainer does

        take(3)
        return time_patches(lambda: take(steps), patches=steps * sampling.global_batch_size)
