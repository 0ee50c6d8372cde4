"""PatchLoader: what a step holds, whatever the ranks, the threads and the interruptions."""

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
import torch

from dali_pipelines import (
    AUGMENTATION_PRESETS,
    AugmentationConfig,
    Batch,
    CaseReadError,
    PatchLoader,
    SamplingConfig,
    Shard,
)
from storage import CohortStore, DecodedCaseCache, open_store
from storage.errors import InputError

# Three steps of 24 samples: 24 divides by every world size that is tried.
PATCHES = SamplingConfig(patch_shape=(6, 8, 7), global_batch_size=24, patches_per_epoch=72, seed=3)
FEW = SamplingConfig(patch_shape=(6, 8, 7), global_batch_size=2, patches_per_epoch=8, seed=3)


def open_loader(cache: Any, augmentation: AugmentationConfig | None = None, **options: Any) -> PatchLoader:
    augmentation = augmentation or AUGMENTATION_PRESETS["light"]
    return PatchLoader(cache, list(cache.cases), augmentation=augmentation, **({"sampling": PATCHES} | options))


def collect(loader: PatchLoader, epochs: int = 1) -> list[Batch]:
    with loader:
        return [batch for _ in range(epochs) for batch in loader]


def assert_same(one: Sequence[Batch], other: Sequence[Batch]) -> None:
    """The same bits."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.case_ids == right.case_ids
        assert torch.equal(left.image, right.image)
        assert torch.equal(left.regions, right.regions)


def test_a_batch_has_the_promised_shapes_and_types(make_cache: Callable[..., Any]) -> None:
    loader = open_loader(make_cache(), sampling=FEW)
    batches = collect(loader)
    assert len(batches) == loader.steps_per_epoch == 4
    assert batches[0].image.shape == (2, 4, 6, 8, 7)
    assert batches[0].image.dtype == torch.float32
    assert batches[0].regions.shape == (2, 3, 6, 8, 7)
    assert batches[0].regions.dtype == torch.uint8
    assert (loader.epoch, loader.step) == (1, 0)
    assert loader.wait_seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [3, 2])
def test_samples_are_the_same_for_any_ranks_and_threads(
    make_cache: Callable[..., Any], everything: AugmentationConfig, dimensions: int
) -> None:
    """Bit for bit, every operation included, noise as well: no sample depends on what else is in its batch."""
    cache = make_cache()
    shape = (6, 8, 7)[-dimensions:]
    sampling = SamplingConfig(
        dimensions=dimensions,  # type: ignore[arg-type]
        patch_shape=shape,
        global_batch_size=24,
        patches_per_epoch=48,
    )
    alone = collect(open_loader(cache, everything, sampling=sampling))
    assert alone[0].image.shape == (24, 4, *shape)
    for world_size in (2, 3, 4, 8):
        for rank in range(world_size)[:: max(1, world_size - 1)]:  # the first and the last
            shard = Shard(rank=rank, world_size=world_size)
            options = {"read_threads": 1 + rank % 3, "graph_threads": 1 + rank % 2, "ready_batches": 1 + rank}
            mine = collect(open_loader(cache, everything, sampling=sampling, shard=shard, **options))
            for whole, part in zip(alone, mine, strict=True):
                assert torch.equal(whole.image[rank::world_size], part.image)
                assert torch.equal(whole.regions[rank::world_size], part.regions)
                assert whole.case_ids[rank::world_size] == part.case_ids


def test_a_restart_at_any_step_goes_on_bit_for_bit(
    make_cache: Callable[..., Any], everything: AugmentationConfig
) -> None:
    cache = make_cache()
    with open_loader(cache, everything, sampling=FEW) as loader:
        states, whole = [loader.state_dict()], []
        for _ in range(2):
            for batch in loader:
                whole.append(batch)
                states.append(loader.state_dict())
    fresh = open_loader(cache, everything, sampling=FEW, read_threads=3, graph_threads=2)
    with fresh:
        for done, state in enumerate(states):
            fresh.load_state_dict(json.loads(json.dumps(state)))
            left = 2 - fresh.epoch
            assert_same([batch for _ in range(left) for batch in fresh], whole[done:])
            assert fresh.epoch == 2


def test_a_loop_that_is_left_and_entered_again_misses_nothing(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    whole = collect(open_loader(cache, sampling=FEW))
    pieces = []
    with open_loader(cache, sampling=FEW) as loader:
        for batch in loader:
            pieces.append(batch)
            break
        pieces += list(loader)
    assert_same(pieces, whole)


def test_a_state_of_other_samples_is_refused(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    with open_loader(cache, sampling=FEW) as loader:
        state = loader.state_dict()
    other = SamplingConfig(patch_shape=(6, 8, 7), global_batch_size=2, patches_per_epoch=8, seed=4)
    with open_loader(cache, sampling=other) as loader, pytest.raises(InputError, match=r"sampling.seed 3, this run 4"):
        loader.load_state_dict(state)
    with open_loader(cache, sampling=FEW) as loader, pytest.raises(InputError, match="version"):
        loader.load_state_dict(state | {"version": 0})


def test_the_order_of_the_cases_does_not_matter(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    light = AUGMENTATION_PRESETS["light"]
    ids = sorted(cache.cases)
    forwards, backwards = (
        collect(PatchLoader(cache, order, sampling=FEW, augmentation=light)) for order in (ids, ids[::-1])
    )
    assert_same(forwards, backwards)


def test_a_batch_must_divide_among_the_ranks(make_cache: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"number of workers \(5\), got 24; use 20, 25"):
        open_loader(make_cache(), shard=Shard(rank=0, world_size=5))


def test_unlabelled_and_missing_cases_are_refused(make_cache: Callable[..., Any]) -> None:
    cache = make_cache(2)
    cache.cases["case_1"] = type(cache.cases["case_1"])(cache.cases["case_1"].image_MDHW, None)
    with pytest.raises(InputError, match="no label: case_1"):
        open_loader(cache)
    with pytest.raises(InputError, match="at least one case"):
        PatchLoader(cache, [], sampling=FEW, augmentation=AUGMENTATION_PRESETS["light"])


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(make_cache: Callable[..., Any], device: str) -> None:
    with pytest.raises(InputError, match="wanted"):
        open_loader(make_cache(), device=device)


def test_half_precision_and_channels_last(make_cache: Callable[..., Any], everything: AugmentationConfig) -> None:
    cache = make_cache()
    plain = collect(open_loader(cache, everything, sampling=FEW))[0]
    half = collect(open_loader(cache, everything, sampling=FEW, dtype="float16", channels_last=True))[0]
    assert half.image.dtype == torch.float16
    assert half.image.shape == plain.image.shape
    assert half.image.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(half.image, plain.image.half())
    flat = SamplingConfig(dimensions=2, patch_shape=(8, 7), global_batch_size=2, patches_per_epoch=8)
    slices = collect(open_loader(cache, sampling=flat, channels_last=True))[0]
    assert slices.image.is_contiguous(memory_format=torch.channels_last)


def test_the_tensors_of_a_batch_outlive_the_next_ones(make_cache: Callable[..., Any]) -> None:
    """Handed over without a copy, yet never written again."""
    with open_loader(make_cache(), sampling=FEW) as loader:
        kept = [(batch.image, batch.image.clone(), batch.regions, batch.regions.clone()) for batch in loader]
    for image, image_then, regions, regions_then in kept:
        assert torch.equal(image, image_then)
        assert torch.equal(regions, regions_then)


def test_images_stored_as_float_are_read_as_float(make_cache: Callable[..., Any]) -> None:
    cache = make_cache(2)
    whole = collect(open_loader(cache, sampling=FEW))
    for name, (image, label) in cache.cases.items():
        cache.cases[name] = type(cache.cases[name])(image.astype("float32"), label)
    for left, right in zip(whole, collect(open_loader(cache, sampling=FEW)), strict=True):
        torch.testing.assert_close(left.image, right.image)


def test_a_bad_case_stops_with_its_name_and_the_sample(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    cache.broken = {"case_2"}
    sound = make_cache()
    expected = collect(open_loader(sound, sampling=FEW))
    first_bad = next(n for n, batch in enumerate(expected) if "case_2" in batch.case_ids)
    with open_loader(cache, sampling=FEW) as loader:
        seen = []
        with pytest.raises(
            CaseReadError, match=r"case case_2 could not be read for sample \d of epoch 0: OSError: che"
        ):
            for batch in loader:
                seen.append(batch)  # noqa: PERF402  (what came before the error is kept)
        assert len(seen) == loader.step == first_bad
        cache.broken = set()
        seen += list(loader)  # mended: the loader goes on where it stood
    assert_same(seen, expected)


def test_a_skipped_case_is_replaced_counted_and_the_others_stay(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    expected = collect(open_loader(cache, sampling=FEW), epochs=2)
    cache.broken = {"case_2"}
    with open_loader(cache, sampling=FEW, on_bad_case="skip") as loader:
        batches = [batch for _ in range(2) for batch in loader]
        state = loader.state_dict()
        assert loader.bad_cases == {"case_2": len(state["replacements"])}
    replaced = 0
    for left, right in zip(batches, expected, strict=True):
        for place, case_id in enumerate(right.case_ids):
            if case_id == "case_2":
                replaced += 1
                assert left.case_ids[place] != "case_2"
                assert left.plans[place].attempt >= 1
            else:
                assert torch.equal(left.image[place], right.image[place])
    assert replaced == len(state["replacements"]) > 0
    first = state["replacements"][0]
    assert set(first) == {"epoch", "index", "attempt", "case_id", "error"}
    assert "checksum" in first["error"]
    with open_loader(cache, sampling=FEW, on_bad_case="skip") as again:
        again.load_state_dict(state)
        assert again.bad_cases == {"case_2": replaced}
        assert_same(collect(open_loader(cache, sampling=FEW, on_bad_case="skip"), epochs=2), batches)


def test_when_no_case_can_be_read_skipping_ends(make_cache: Callable[..., Any]) -> None:
    cache = make_cache(3)
    cache.broken = set(cache.cases)
    with (
        open_loader(cache, sampling=FEW, on_bad_case="skip") as loader,
        pytest.raises(CaseReadError, match="8 cases in a row"),
    ):
        next(iter(loader))


def test_a_patch_is_read_once_and_only_so_far_ahead(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    with open_loader(cache, sampling=FEW, ready_batches=1, read_threads=2) as loader:
        batches = iter(loader)
        next(batches)
        deadline = time.monotonic() + 60
        while len(cache.reads) < 4 and time.monotonic() < deadline:  # the readers go on by themselves
            time.sleep(0.001)
    # One batch handed out, one ready, one being computed, two samples ahead of it and two more on the way.
    assert 4 <= len(cache.reads) <= 10
    cache.reads.clear()
    collect(open_loader(cache, sampling=FEW, ready_batches=1, read_threads=1))
    assert len(cache.reads) <= 8 + 6


def test_a_closed_loader_says_so_and_closes_twice(make_cache: Callable[..., Any]) -> None:
    loader = open_loader(make_cache(), sampling=FEW)
    next(iter(loader))
    loader.close()
    loader.close()
    assert loader.step == 1
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(loader))


def test_with_the_real_store_and_cache(phantom_store: CohortStore, tmp_path: Any) -> None:
    cache = DecodedCaseCache(phantom_store, tmp_path, max_bytes=10**9)
    sampling = SamplingConfig(patch_shape=(48, 48, 48), global_batch_size=2, patches_per_epoch=4)
    loader = PatchLoader(
        cache, phantom_store.case_ids, sampling=sampling, augmentation=AUGMENTATION_PRESETS["light"], read_threads=2
    )
    batches = collect(loader)
    assert batches[0].image.shape == (2, 4, 48, 48, 48)
    assert any(batch.regions.any() for batch in batches)
    assert cache.misses <= 3


@pytest.mark.parametrize("array", ["image", "label", "foreground"])
def test_a_corrupted_chunk_of_the_store_names_its_case(phantom_store: CohortStore, tmp_path: Any, array: str) -> None:
    source = Path(urlparse(phantom_store.uri).path)
    shutil.copytree(source, tmp_path / "store")
    bad = phantom_store.case_ids[1]
    for chunk in (path for path in (tmp_path / "store" / "cases" / bad / array / "c").rglob("*") if path.is_file()):
        damaged = bytearray(chunk.read_bytes())
        damaged[len(damaged) // 3] ^= 0xFF
        chunk.write_bytes(damaged)
    cache = DecodedCaseCache(open_store(tmp_path / "store"), tmp_path / "cache", max_bytes=10**9)
    sampling = SamplingConfig(
        patch_shape=(16, 16, 16), global_batch_size=3, patches_per_epoch=6, foreground_fraction=1.0
    )
    options = {"sampling": sampling, "augmentation": AUGMENTATION_PRESETS["light"]}
    with (
        PatchLoader(cache, phantom_store.case_ids, **options) as loader,
        pytest.raises(CaseReadError, match=f"case {bad} could not be read for sample"),
    ):
        list(loader)
    with PatchLoader(cache, phantom_store.case_ids, **options, on_bad_case="skip") as loader:
        assert all(bad not in batch.case_ids for batch in loader)
        assert set(loader.bad_cases) == {bad}


def test_what_ails_the_machine_is_not_skipped_as_a_bad_case(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()

    def read_case(case_id: str) -> None:
        raise InputError("the disk of the cache is full; free space")

    cache.read_case = read_case
    with (
        open_loader(cache, sampling=FEW, on_bad_case="skip") as loader,
        pytest.raises(CaseReadError, match="disk of the cache is full"),
    ):
        next(iter(loader))


def test_a_scan_that_is_dropped_is_zero_after_all_augmentations(
    make_cache: Callable[..., Any], everything: AugmentationConfig
) -> None:
    sampling = dataclasses.replace(FEW, modality_dropout=1.0, patches_per_epoch=24)
    always = {name: 1.0 for name in vars(everything) if name.endswith("_probability") and "modality" not in name}
    with open_loader(make_cache(), dataclasses.replace(everything, **always), sampling=sampling) as loader:
        for batch in loader:
            for image_MDHW, plan in zip(batch.image, batch.plans, strict=True):
                kept = plan.parameters["normalise_scale"] != 0
                assert kept.any() and not kept.all()
                assert [bool(modality.any()) for modality in image_MDHW] == kept.tolist()


def test_a_state_of_before_there_was_dropout_or_shift_goes_on_without_them(make_cache: Callable[..., Any]) -> None:
    cache = make_cache()
    with open_loader(cache, sampling=FEW) as loader:
        state = loader.state_dict()
        for name in ("sampling.modality_dropout", "augmentation.shift_probability", "augmentation.shift_range"):
            del state["identity"][name]
        loader.load_state_dict(state)
    dropping = dataclasses.replace(FEW, modality_dropout=0.5)
    with open_loader(cache, sampling=dropping) as loader, pytest.raises(InputError, match=r"modality_dropout 0\.0"):
        loader.load_state_dict(state)
