"""PatchLoader: what a step holds, whatever the ranks, the threads and the interruptions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig, Shard
from storage.errors import InputError

PATCHES = SamplingConfig(patch_shape=(8, 10, 9), global_batch_size=24, patches_per_epoch=72, seed=3)


def open_loader(cache: Any, **options: Any) -> PatchLoader:
    options = {"sampling": PATCHES, "augmentation": AUGMENTATION_PRESETS["nnunet"]} | options
    return PatchLoader(cache, list(cache.cases), **options)


def collect(loader: PatchLoader, epochs: int = 1) -> list[tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]]:
    with loader:
        return [(b.image.clone(), b.regions.clone(), b.case_ids) for _ in range(epochs) for b in loader]


def test_a_batch_has_the_promised_shapes_and_types(make_cache: Callable[..., Any]) -> None:
    with open_loader(make_cache()) as loader:
        batches = list(loader)
    assert len(batches) == loader.steps_per_epoch == 3
    assert batches[0].image.shape == (24, 4, 8, 10, 9)
    assert batches[0].image.dtype == torch.float32
    assert batches[0].regions.shape == (24, 3, 8, 10, 9)
    assert batches[0].regions.dtype == torch.uint8
    assert loader.epoch == 1
    assert loader.step == 0
    assert loader.wait_seconds > 0


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_a_step_is_the_same_for_any_number_of_ranks(make_cache: Callable[..., Any], world_size: int) -> None:
    cache = make_cache()
    alone = collect(open_loader(cache))
    ranks = [collect(open_loader(cache, shard=Shard(rank=r, world_size=world_size))) for r in range(world_size)]
    for step, (image, regions, case_ids) in enumerate(alone):
        for rank in range(world_size):
            assert torch.equal(image[rank::world_size], ranks[rank][step][0])
            assert torch.equal(regions[rank::world_size], ranks[rank][step][1])
            assert case_ids[rank::world_size] == ranks[rank][step][2]


def test_a_batch_must_divide_among_the_ranks(make_cache: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"number of workers \(5\), got 24; use 20, 25"):
        open_loader(make_cache(), shard=Shard(rank=0, world_size=5))


@pytest.mark.parametrize("stop_after", range(7))
def test_a_restart_at_any_step_goes_on_bit_for_bit(make_cache: Callable[..., Any], stop_after: int) -> None:
    cache = make_cache()
    whole = collect(open_loader(cache), epochs=2)
    seen = 0
    with open_loader(cache) as first:
        while seen < stop_after:
            for _ in first:
                seen += 1
                if seen == stop_after:
                    break
        state = first.state_dict()
    second = open_loader(cache, read_threads=3, graph_threads=2)
    second.load_state_dict(state)
    rest = collect(second, epochs=2 - second.epoch)
    assert len(rest) == 6 - stop_after
    for (image, regions, case_ids), (wanted_image, wanted_regions, wanted_ids) in zip(
        rest, whole[stop_after:], strict=True
    ):
        assert torch.equal(image, wanted_image)
        assert torch.equal(regions, wanted_regions)
        assert case_ids == wanted_ids


def test_slices(make_cache: Callable[..., Any]) -> None:
    sampling = SamplingConfig(dimensions=2, patch_shape=(16, 20), global_batch_size=6, patches_per_epoch=12)
    batches = collect(open_loader(make_cache(), sampling=sampling))
    assert batches[0][0].shape == (6, 4, 16, 20)
    assert batches[0][1].shape == (6, 3, 16, 20)
    assert len(set(batches[0][2])) == 5
