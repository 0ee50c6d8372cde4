"""Cases decoded before they are asked for: counted by the thread that decoded them, never timed."""

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dali_pipelines import AUGMENTATION_PRESETS, CaseReadError, PatchLoader, SamplingConfig, Shard, decode_ahead
from dali_pipelines.decode_ahead import ColdCache, DecodeAhead
from storage import CorruptStoreError, DecodedCaseCache

CASES = 16
CASE_BYTES = (2 * 4 + 1) * 8 * 9 * 10 + 4
# An epoch is a pass over the cases, one at a step.
PASS = SamplingConfig(patch_shape=(4, 4, 4), global_batch_size=1, patches_per_epoch=CASES, seed=5)


def open_loader(cache: DecodedCaseCache, case_ids: Any, **options: Any) -> PatchLoader:
    settings = {"sampling": PASS, "augmentation": AUGMENTATION_PRESETS["none"], "ready_batches": 1, "read_threads": 1}
    return PatchLoader(cache, list(case_ids), **(settings | {"decode_threads": 2} | options))


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def spoil(store: Any, *case_ids: str) -> None:
    """Make the store find these cases damaged."""
    read_case = store.read_case

    def read_sound(case_id: str) -> Any:
        arrays = read_case(case_id)
        if case_id in case_ids:
            raise CorruptStoreError(f"case {case_id}: not the voxels that were written")
        return arrays

    store.read_case = read_sound


def ahead(store: Any) -> list[str]:
    """The cases that were decoded by the threads that run ahead."""
    by_thread = zip(store.reads, store.readers, strict=True)
    return [case_id for case_id, thread in by_thread if thread.startswith("decode-ahead")]


def ahead_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode-ahead")]


@pytest.fixture
def store(make_cache: Callable[..., Any]) -> Any:
    """Sixteen small cases in memory."""
    return make_cache(CASES, (8, 9, 10))


def test_cases_are_decoded_before_they_are_asked_for_and_each_once(store: Any, tmp_path: Path) -> None:
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
    with open_loader(cache, store.cases) as loader:
        batches = iter(loader)
        next(batches)
        wait_for(lambda: all(cache.holds(case_id) for case_id in store.cases))
        # One sample was handed out, one is ready, one is being read: those may have been asked for first.
        assert len(ahead(store)) >= CASES - 3
        assert sorted(store.reads) == sorted(store.cases)
        assert len([*batches, *loader]) == 2 * CASES - 1
    # After the first pass, and in what was left of it, the feed never waited for a case to be decoded.
    assert len(store.reads) == CASES
    assert cache.misses == CASES - len(ahead(store))


def test_the_ranks_of_a_node_share_the_work(store: Any, tmp_path: Path) -> None:
    for _ in range(2):
        rank = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
        DecodeAhead(rank, iter(store.cases), threads=2)
    wait_for(lambda: ahead_threads() == [])
    assert sorted(store.reads) == sorted(store.cases)


def test_a_cache_that_is_too_small_is_filled_once_and_nothing_more(store: Any, tmp_path: Path) -> None:
    cache = DecodedCaseCache(store, tmp_path / "ahead", max_bytes=3 * CASE_BYTES)
    with open_loader(cache, store.cases) as loader:
        batches = list(loader)
        wait_for(lambda: ahead_threads() == [])
    assert len(ahead(store)) <= 3  # what is evicted is evicted by those who ask
    plain = DecodedCaseCache(store, tmp_path / "plain", max_bytes=3 * CASE_BYTES)
    with open_loader(plain, store.cases, decode_threads=0) as loader:
        for one, other in zip(batches, loader, strict=True):
            assert one.case_ids == other.case_ids
            assert torch.equal(one.image, other.image)


@pytest.mark.parametrize("on_bad_case", ["skip", "raise"])
def test_a_bad_case_is_left_to_the_sample_that_asks_for_it(store: Any, tmp_path: Path, on_bad_case: str) -> None:
    spoil(store, "case_3")
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
    loader = open_loader(cache, store.cases, on_bad_case=on_bad_case)
    expected = next(index for index in range(CASES) if loader._samples.sampler.case_id(0, index) == "case_3")
    with loader:
        if on_bad_case == "skip":
            assert len(list(loader)) == CASES
            assert loader.bad_cases == {"case_3": 1}
        else:
            with pytest.raises(CaseReadError, match=f"case case_3 could not be read for sample {expected} of epoch 0"):
                list(loader)
            assert loader.step == expected
    assert ahead_threads() == []


def test_a_full_disk_ends_it(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[int]()

    def full(*_: object) -> None:
        tried.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.store.cache.os.posix_fallocate", full)
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
    running = DecodeAhead(cache, iter(store.cases), threads=1)
    wait_for(lambda: ahead_threads() == [])
    running.stop()
    assert (len(tried), store.reads) == (1, [])


@pytest.mark.parametrize("how", ["close", "forgotten"])
def test_it_ends_with_its_loader(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Waiting for what is being decoded, and beginning nothing more."""
    gate, held, read_case, stop = threading.Event(), list[str](), store.read_case, DecodeAhead.stop
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
    loader = open_loader(cache, store.cases)
    later = {loader._samples.sampler.case_id(0, index) for index in range(6, CASES)}

    def read_when_stopped(case_id: str) -> Any:
        if case_id in later:
            held.append(case_id)
            gate.wait(60)
        return read_case(case_id)

    def open_gate_and_stop(running: DecodeAhead) -> None:
        running._over.set()
        gate.set()
        stop(running)

    store.read_case = read_when_stopped
    monkeypatch.setattr(DecodeAhead, "stop", open_gate_and_stop)
    next(iter(loader))
    wait_for(lambda: len(held) == 2)
    if how == "close":
        loader.close()
    del loader
    gc.collect()
    assert ahead_threads() == []
    assert len(held) == 2
    assert list(tmp_path.rglob("*.partial")) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_the_order_is_that_of_the_ranks_own_samples(store: Any, tmp_path: Path, rank: int) -> None:
    """From the loader's position on, over the end of the epoch."""
    cache, shard = DecodedCaseCache(store, tmp_path, max_bytes=10**9), Shard(rank=rank, world_size=2)
    sampling = SamplingConfig(patch_shape=(4, 4, 4), global_batch_size=2, patches_per_epoch=10, seed=5)
    with open_loader(cache, store.cases, sampling=sampling, shard=shard) as loader:
        taken = iter(loader)
        for _ in range(2):
            next(taken)
        order = list(loader._cases_in_order())
        asked = [batch.case_ids[0] for batch in taken]
        asked += [batch.case_ids[0] for batch in loader]
    assert order[: len(set(asked))] == list(dict.fromkeys(asked))
    assert sorted(order) == sorted(store.cases)


def test_what_is_left_to_decode_is_counted_and_timed(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
    for case_id in ("case_1", "case_2"):
        cache.read_case(case_id)
    now, took, read_case = [0.0], iter([1.5, 0.25]), store.read_case

    def read_slowly(case_id: str) -> Any:
        now[0] += next(took)
        return read_case(case_id)

    store.read_case = read_slowly
    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: 0.0)
    monkeypatch.setattr(decode_ahead, "time", clock)
    with open_loader(cache, store.cases) as loader:
        # The first to be decoded in a process is no measure: it pays for imports.
        assert loader.cold_cache() == ColdCache(cases=16, missing=14, seconds_a_case=0.25, fit=True)


def test_a_case_that_cannot_be_decoded_is_no_measure(store: Any, tmp_path: Path) -> None:
    """Whoever asks for it says so."""
    spoil(store, *store.cases)
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
    with open_loader(cache, store.cases) as loader:
        assert loader.cold_cache() is None


def test_a_cache_that_cannot_hold_the_cases_is_said_to_be_too_small(store: Any, tmp_path: Path) -> None:
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES - 1)
    with open_loader(cache, store.cases) as loader:
        cold = loader.cold_cache()
    assert cold is not None and not cold.fit


def test_there_is_nothing_to_say_of_a_warm_cache(store: Any, tmp_path: Path) -> None:
    cache = DecodedCaseCache(store, tmp_path, max_bytes=CASES * CASE_BYTES)
    for case_id in store.cases:
        cache.read_case(case_id)
    with open_loader(cache, store.cases) as loader:
        assert loader.cold_cache() is None
        assert len(list(loader)) == CASES
    assert ahead(store) == []
