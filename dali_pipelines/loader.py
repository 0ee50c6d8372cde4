"""PatchLoader: what the trainer sees. Iterate, state_dict, load_state_dict, close; torch tensors out.

B batch, M modalities, R regions, D H W voxels z, y, x.
"""

import hashlib
import json
import time
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, Self, TypeVar

import numpy as np

from dali_pipelines.augmentation import AugmentationConfig
from dali_pipelines.buffers import BufferPool
from dali_pipelines.decode_ahead import ColdCache, DecodeAhead, first_uses, measure_cold_cache
from dali_pipelines.delivery import Batch, Delivery, InFlight
from dali_pipelines.delivery_on_cpu import DeliveryOnCpu
from dali_pipelines.devices import make_current, parse_device
from dali_pipelines.graph import GraphConfig
from dali_pipelines.run_ahead import RunAhead
from dali_pipelines.sampling import SamplingConfig
from dali_pipelines.shard import Shard, positions
from dali_pipelines.source import (
    OnBadCase,
    Replacement,
    Sample,
    SampleReader,
    labelled_infos,
    make_sampler,
    read_ahead,
    stored_dtype,
)
from storage import DecodedCaseCache, Frame
from storage.errors import InputError

STATE_VERSION = 1
# What states of before do not name: with these values samples are as they were.
_LATER: dict[str, Any] = {
    "sampling.modality_dropout": 0.0,
    "augmentation.shift_probability": 0.0,
    "augmentation.shift_range": [-0.3, 0.3],
}

# Ready batches even out dear ones. What is read ahead of them only has to keep the reading threads busy.
BATCHES_READ_AHEAD = 2

T = TypeVar("T")


class PatchLoader:
    """Batches of augmented patches or slices of one rank, computed ahead of the trainer.

    `for batch in loader` gives the steps of the current epoch that remain, then moves on to the next epoch. What a
    step holds depends on the configuration, the seed and the cases alone.

    `epoch` and `step` say what comes next, `wait_seconds` how long the trainer has stood in next(), and `replacements`
    which samples another case had to fill.

    Args:
        cache: decoded cases; shared by all ranks of a node.
        case_ids: labelled cases; their order does not matter.
        sampling, augmentation: what is drawn.
        shard: the part of each global batch that is this rank's.
        device: "cpu" or "cuda:N": where the graph runs and the tensors lie.
        normalisation, frame: the intensities' scale and the part of the scan, as the model records them.
        dtype: of the images; autocast takes either.
        read_threads, graph_threads: CPU threads that read and that compute; count them as this rank's CPUs.
        decode_threads: CPU threads with nothing else to do, which decode cases before they are asked for; 0: none.
        ready_batches: computed before they are asked for. Up to two more are being read.
        on_bad_case: "raise" stops with the case's name; "skip" puts another case in its place and counts it.
        channels_last: image tensors as a permuted view of channels-last memory.

    Raises:
        InputError: no or unlabelled cases, a batch that does not divide among the ranks, a missing GPU.
    """

    def __init__(
        self,
        cache: DecodedCaseCache,
        case_ids: Sequence[str],
        *,
        sampling: SamplingConfig,
        augmentation: AugmentationConfig,
        shard: Shard | None = None,
        device: str = "cpu",
        normalisation: Literal["zscore", "minmax"] = "zscore",
        frame: Frame | None = None,
        dtype: Literal["float32", "float16"] = "float32",
        read_threads: int = 2,
        graph_threads: int = 1,
        decode_threads: int = 0,
        ready_batches: int = 2,
        on_bad_case: OnBadCase = "raise",
        channels_last: bool = False,
    ) -> None:
        self.sampling = sampling
        self.shard = shard or Shard()
        self.epoch = 0
        self.step = 0
        self.decode_threads = decode_threads
        self.wait_seconds = 0.0
        self.replacements: list[Replacement] = []
        self._place = place = parse_device(device)
        infos = labelled_infos(cache, case_ids)
        sampler = make_sampler(cache, infos, sampling, augmentation, normalisation, frame)
        self._samples = SampleReader(
            cases=cache,
            sampler=sampler,
            dimensions=sampling.dimensions,
            dtype=stored_dtype(infos),
            on_bad_case=on_bad_case,
            buffers=BufferPool(page_locked=place.type == "cuda"),
        )
        self._read_threads = read_threads
        self._ready_batches = ready_batches
        self._identity = _describe(case_ids, sampling, augmentation, normalisation, frame or Frame())
        self._batch_size = self.shard.local_batch_size(sampling.global_batch_size)
        graph = GraphConfig(
            augmentation=augmentation,
            size=sampling.patch_shape,
            batch_size=self._batch_size,
            modalities=len(infos[0].modalities),
            integers=stored_dtype(infos) is np.int16,
            regions=tuple(region.labels for region in cache.task.regions),
            skull_stripped=cache.task.skull_stripped,
            device_id=place.index,
            on_gpu=place.type == "cuda",
            num_threads=graph_threads,
            float16=dtype == "float16",
            channels_last=channels_last,
        )
        self._delivery: Delivery | DeliveryOnCpu | None = Delivery(graph) if graph.on_gpu else DeliveryOnCpu(graph)
        self._in_flight = InFlight(place)
        self._cases = len(infos)
        self._feed: RunAhead[Batch] | None = None
        self._ends: list[weakref.finalize[Any, Any]] = []

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the same for every rank."""
        return self.sampling.steps_per_epoch

    @property
    def bad_cases(self) -> dict[str, int]:
        """How often each case could not be read and was replaced, on this rank."""
        return dict(Counter(replacement.case_id for replacement in self.replacements))

    def __iter__(self) -> Iterator[Batch]:
        """The remaining steps of the current epoch; afterwards `epoch` is one more and `step` 0."""
        while self.step < self.steps_per_epoch:
            yield self._take()
        self.epoch, self.step = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch handed out, in plain types; only `replacements` differ between ranks."""
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "step": self.step,
            "identity": dict(self._identity),
            "replacements": [asdict(replacement) for replacement in self.replacements],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position. Ranks and threads may have changed; what defines the samples may not (InputError)."""
        if state.get("version") != STATE_VERSION:
            found = state.get("version")
            raise InputError(f"wanted a loader state of version {STATE_VERSION}, got {found}; start a new run")
        for name, value in self._identity.items():
            saved = state["identity"].get(name, _LATER.get(name))
            if saved != value:
                raise InputError(
                    f"the saved loader state has {name} {saved}, this run {value}: its samples "
                    "would differ; resume with the saved configuration or start a new run"
                )
        self._stop_feed()
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.replacements = [Replacement(**entry) for entry in state["replacements"]]

    def cold_cache(self) -> ColdCache | None:
        """What this node has yet to decode of the loader's cases, None where it is nothing; decodes one or two."""
        return measure_cold_cache(self._samples.cases, tuple(self._cases_in_order()))

    def close(self) -> None:
        """End all threads and free the pipeline; safe to call twice. The position stays readable."""
        self._stop_feed()
        self._delivery = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> Batch:
        started = time.perf_counter()
        if self._feed is None:
            self._start_feed()
        assert self._feed is not None
        try:
            batch = self._feed.next()
        except BaseException:
            self._stop_feed()
            raise
        self.wait_seconds += time.perf_counter() - started
        self.step += 1
        self.replacements.extend(batch.replacements)
        return self._in_flight.hand_out(batch)

    def _start_feed(self) -> None:
        if self._delivery is None:
            raise RuntimeError("this PatchLoader is closed; make a new one")
        make_ours = partial(make_current, self._place)
        pool = ThreadPoolExecutor(self._read_threads, thread_name_prefix="read-patch", initializer=make_ours)
        batches = compute_batches(
            self._samples,
            positions(self.sampling, self.shard, self.epoch, self.step),
            pool,
            self._delivery.run,
            batch_size=self._batch_size,
            ahead=max(min(self._ready_batches, BATCHES_READ_AHEAD) * self._batch_size, self._read_threads),
        )
        self._feed = RunAhead(batches, ready=self._ready_batches, name="patch-feed", initializer=make_ours)
        ahead = DecodeAhead(self._samples.cases, self._cases_in_order(), threads=self.decode_threads)
        # Reached also when nobody calls close: at garbage collection and when the interpreter ends.
        self._ends = [weakref.finalize(self, each.stop) for each in (ahead, self._feed)]

    def _stop_feed(self) -> None:
        for end in self._ends:
            end()
        self._feed, self._ends = None, []

    def _cases_in_order(self) -> Iterator[str]:
        """Each case, when this rank first asks for it from its position on."""
        numbers = positions(self.sampling, self.shard, self.epoch, self.step)
        return first_uses(self._samples.sampler, numbers, cases=self._cases)


def compute_batches(
    samples: SampleReader,
    numbers: Iterator[tuple[int, int]],
    pool: ThreadPoolExecutor,
    deliver: Callable[[Sequence[Sample]], T],
    *,
    batch_size: int,
    ahead: int,
) -> Generator[T, None, None]:
    """Batches without end, as `deliver` makes them of the samples of these (epoch, index); owns the pool.

    What `deliver` returns must not refer to the samples' memory: it is written again.
    """
    try:
        read = read_ahead(samples.read, numbers, pool, ahead=ahead)
        while True:
            batch = [next(read) for _ in range(batch_size)]
            delivered = deliver(batch)
            for sample in batch:
                samples.buffers.give_back(sample.buffer)
            yield delivered
    finally:
        pool.shutdown(cancel_futures=True)


def _describe(
    case_ids: Sequence[str],
    sampling: SamplingConfig,
    augmentation: AugmentationConfig,
    normalisation: str,
    frame: Frame,
) -> dict[str, Any]:
    """What the samples depend on, in types that JSON keeps."""
    cases = hashlib.sha256("\n".join(sorted(case_ids)).encode()).hexdigest()
    described: dict[str, Any] = {"cases": cases, "normalisation": normalisation}
    described |= {f"frame.{name}": value for name, value in asdict(frame).items()}
    described |= {f"sampling.{name}": value for name, value in asdict(sampling).items()}
    described |= {f"augmentation.{name}": value for name, value in asdict(augmentation).items()}
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain
