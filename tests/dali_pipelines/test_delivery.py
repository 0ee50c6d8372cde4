"""What DALI is given, and in which threads: all that can be seen without a GPU of how one would be fed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig, delivery
from dali_pipelines.delivery import Delivery, make_noise_batch
from dali_pipelines.graph import NOISE_BANK, GraphConfig
from dali_pipelines.noise_bank import make_noise_bank

FEW = SamplingConfig(patch_shape=(6, 8, 7), global_batch_size=2, patches_per_epoch=8, seed=3)


def graph_config(**changes: Any) -> GraphConfig:
    settings = {"augmentation": AUGMENTATION_PRESETS["nnunet"], "size": (6, 8, 7), "batch_size": 2, "modalities": 4}
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
        empty = type("Output", (), {"as_tensor": lambda _: torch.zeros(2, 1)})
        return empty(), empty()

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
    cache = make_cache()
    with PatchLoader(cache, list(cache.cases), sampling=FEW, augmentation=AUGMENTATION_PRESETS["nnunet"]) as loader:
        assert loader._delivery is not None
        fed = watch(loader._delivery, monkeypatch)
        assert len(list(loader)) == 4
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
