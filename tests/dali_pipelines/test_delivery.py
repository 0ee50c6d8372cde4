"""What DALI is given, and in which threads: all that can be seen without a GPU of how one would be fed."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from dali_pipelines import (
    Batch,
    PatchLoader,
    PatchPlan,
    SamplingConfig,
    VolumeLoader,
    delivery,
    loader,
    volumes,
)
from dali_pipelines.augmentation import NONE
from dali_pipelines.buffers import BufferPool
from dali_pipelines.delivery import Delivery, make_noise_batch
from dali_pipelines.graph import NOISE_BANK, GraphConfig
from dali_pipelines.noise_bank import make_noise_bank
from dali_pipelines.source import Sample

FEW = SamplingConfig(patch_shape=(6, 8, 7), global_batch_size=2, patches_per_epoch=8, seed=3)

NOISE = replace(NONE, noise_probability=0.5)


def graph_config(**changes: Any) -> GraphConfig:
    settings = {"augmentation": NOISE, "size": (6, 8, 7), "batch_size": 2, "modalities": 4, "regions": ()}
    return GraphConfig(**(settings | {"integers": True} | changes))


@dataclass
class Fed:
    """One call of feed_input."""

    name: str
    data: Any
    options: dict[str, Any]


@dataclass
class StandIn:
    """A pipeline that takes everything, computes nothing and remembers."""

    fed: list[Fed] = field(default_factory=list)

    def build(self) -> None:
        pass

    def feed_input(self, name: str, data: Any, **options: Any) -> None:
        self.fed.append(Fed(name, data, options))

    def run(self) -> Sequence[Any]:
        output = type("Output", (), {"as_tensor": lambda _: torch.zeros(2, 1)})
        return output(), output()

    def of(self, name: str) -> list[Fed]:
        """What the input of this name was given, batch by batch."""
        return [each for each in self.fed if each.name == name]


def watch(feeding: Delivery, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Remember what a real pipeline is fed, and feed it."""
    seen, feed = StandIn(), feeding._pipeline.feed_input

    def feed_and_note(name: str, data: Any, **options: Any) -> None:
        seen.feed_input(name, data, **options)
        feed(name, data, **options)

    monkeypatch.setattr(feeding._pipeline, "feed_input", feed_and_note)
    return seen


def test_the_noise_bank_is_made_once_and_fed_whole(
    make_cache: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece DALI shares it, in several it would copy all of them for every batch."""
    monkeypatch.setattr(loader, "DeliveryOnCpu", Delivery)
    cache = make_cache()
    with PatchLoader(cache, list(cache.cases), sampling=FEW, augmentation=NOISE) as patches:
        assert isinstance(patches._delivery, Delivery)
        fed = watch(patches._delivery, monkeypatch)
        assert len(list(patches)) == 4
    banks = fed.of(NOISE_BANK)
    assert len(banks) >= 4
    for bank in banks:
        assert isinstance(bank.data, torch.Tensor)
        assert bank.data.data_ptr() == banks[0].data.data_ptr()
        assert bank.data.shape == (2, 4, 6 + 32, 8 + 32, 7 + 32)
        assert bank.data.is_contiguous()
        assert bank.options == {"cuda_stream": -1}  # else torch's current stream, which trains
    for one in banks[0].data:
        torch.testing.assert_close(one, torch.from_numpy(make_noise_bank(4, (6, 8, 7))), rtol=0, atol=0)


def test_on_a_gpu_the_bank_is_fed_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, made = StandIn(), list[torch.device]()

    def make(config: GraphConfig, device: torch.device) -> torch.Tensor:
        made.append(device)
        return make_noise_batch(config, torch.device("meta"))

    monkeypatch.setattr(delivery, "build_patch_pipeline", lambda config: pipeline)
    monkeypatch.setattr(delivery, "make_noise_batch", make)
    feeding = Delivery(graph_config(on_gpu=True, device_id=1))
    assert made == [torch.device("cuda:1")]
    for _ in range(2):
        feeding.run([])
    first, second = pipeline.of(NOISE_BANK)
    assert first.data is second.data
    assert first.data.device.type == "meta" and first.data.is_contiguous() and len(first.data) == 2
    assert first.options == second.options == {"cuda_stream": -1}


def make_sample() -> Sample:
    """Voxels in a buffer, as the reading threads leave them."""
    buffer = np.zeros(4 * 2 * 6 + 6, np.uint8)
    image, label = buffer[: 4 * 2 * 6].view(np.int16).reshape(4, 1, 2, 3), buffer[4 * 2 * 6 :].reshape(1, 1, 2, 3)
    places = {"epoch": 0, "index": 0, "attempt": 0, "read_origin": (0, 0, 0), "read_shape": (1, 2, 3)}
    parameters = dict.fromkeys(("normalise_scale", "normalise_offset", "mirror"), np.zeros(1, np.float32))
    plan = PatchPlan(**places, case_id="case_0", foreground=None, parameters=parameters)
    return Sample(plan=plan, image=image, label=label, buffer=buffer, replacements=())


@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_gpu_is_told_that_it_may_fetch_the_voxels_itself(monkeypatch: pytest.MonkeyPatch, *, on_gpu: bool) -> None:
    """Not copied either: the blocks lie where they were read to."""
    pipeline, wrapped = StandIn(), list[tuple[Any, str, bool]]()

    def wrap(array: Any, layout: str, *, is_pinned: bool) -> Any:  # the real one asks the driver for the GPU
        wrapped.append((array, layout, is_pinned))
        return array

    monkeypatch.setattr(delivery, "build_patch_pipeline", lambda config: pipeline)
    monkeypatch.setattr(delivery, "TensorCPU", wrap)
    feeding = Delivery(graph_config(augmentation=NONE, on_gpu=on_gpu, device_id=0))
    samples = [make_sample(), make_sample()]
    feeding.run(samples)
    for name in ("image", "label"):
        (fed,) = pipeline.of(name)
        assert [block is getattr(sample, name) for block, sample in zip(fed.data, samples, strict=True)] == [True, True]
    voxels = [getattr(sample, name) for name in ("image", "label") for sample in samples]
    assert [id(array) for array, _, _ in wrapped] == ([id(array) for array in voxels] if on_gpu else [])
    assert all(is_pinned and not layout for _, layout, is_pinned in wrapped)


@pytest.fixture
def second_gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, torch.device]]:
    """Two GPUs that nobody computes with; gives the threads in which one was made current."""
    current: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: current.append((threading.current_thread().name, gpu)))
    return current


def test_every_thread_that_feeds_works_for_the_loaders_gpu(
    make_cache: Callable[..., Any], second_gpu: list[tuple[str, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new thread is on GPU 0: page-locked memory would be taken for that one's, and a context made there."""
    early: list[str] = []

    class Deliver:
        """In a GPU's place, and fed in a thread that must be on that GPU by then."""

        def __init__(self, config: GraphConfig) -> None:
            assert config.on_gpu and config.device_id == 1

        def run(self, samples: Sequence[Sample]) -> Batch:
            note_early()
            return Batch(image=torch.zeros(1), regions=torch.zeros(1), plans=())

    class Unlocked(BufferPool):
        def __init__(self, *, page_locked: bool) -> None:
            assert page_locked
            super().__init__()

        def take(self, size: int) -> Any:
            note_early()
            return super().take(size)

    def note_early() -> None:
        name = threading.current_thread().name
        if (name, torch.device("cuda:1")) not in second_gpu:
            early.append(name)

    monkeypatch.setattr(loader, "Delivery", Deliver)
    monkeypatch.setattr(loader, "BufferPool", Unlocked)
    cache = make_cache()
    options = {"augmentation": NONE, "device": "cuda:1", "read_threads": 2}
    with PatchLoader(cache, list(cache.cases), sampling=FEW, **options) as patches:
        next(iter(patches))
    assert early == []
    assert {gpu for _, gpu in second_gpu} == {torch.device("cuda:1")}
    assert {"patch-feed", "read-patch_0"} <= {name for name, _ in second_gpu}


def test_whole_cases_are_fed_from_a_thread_on_the_gpu_too(
    make_cache: Callable[..., Any], second_gpu: list[tuple[str, torch.device]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "build_volume_pipeline", lambda config: StandIn())
    assert next(iter(VolumeLoader(make_cache(1), ["case_0"], device="cuda:1"))).case_id == "case_0"
    assert second_gpu == [("volume-feed", torch.device("cuda:1"))]


def test_on_a_cpu_no_gpu_is_touched(make_cache: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "set_device", lambda gpu: pytest.fail("a GPU was made current"))
    cache = make_cache(2)
    with PatchLoader(cache, list(cache.cases), sampling=FEW, augmentation=NONE) as patches:
        next(iter(patches))
