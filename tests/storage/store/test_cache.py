"""The node's cache: filled once, shared, bounded, and never wrong."""

import fcntl
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import storage.store.cache
from storage import CohortStore, CorruptStoreError, DecodedCaseCache, InputError, open_store
from storage.cases.patch import cut_patch

PLENTY = 1 << 30


def files_of(cache: DecodedCaseCache, ending: str = ".case") -> list[Path]:
    return sorted(cache.folder.glob(f"*{ending}"))


def one_case_bytes(store: CohortStore) -> int:
    return max(storage.store.cache._file_bytes(info) for info in store.infos())


def test_the_first_use_fills_and_later_ones_map(small_store: CohortStore, tmp_path: Path) -> None:
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    for _ in range(2):
        for case_id in small_store.case_ids:
            cached, stored = cache.read_case(case_id), small_store.read_case(case_id)
            assert (cached.image_MDHW == stored.image_MDHW).all()
            assert cached.label_DHW is not None and stored.label_DHW is not None
            assert (cached.label_DHW == stored.label_DHW).all()
            assert not cached.image_MDHW.flags.writeable
    assert (cache.misses, cache.hits) == (4, 4)


def test_patches_are_copies_equal_to_the_stores(small_store: CohortStore, tmp_path: Path) -> None:
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    case_id = small_store.case_ids[0]
    for origin in ((-5, 2, 3), (0, 0, 0), (9, 30, -2), (-99, 0, 0)):
        cached, stored = (
            cut_patch(cache.read_case(case_id), origin, (8, 9, 10)),
            small_store.read_patch(case_id, origin, (8, 9, 10)),
        )
        assert (cached.image_MDHW == stored.image_MDHW).all()
        assert cached.label_DHW is not None and stored.label_DHW is not None
        assert (cached.label_DHW == stored.label_DHW).all()
        cached.image_MDHW[...] = -1  # a fresh copy, so this harms nobody
    assert (cache.read_case(case_id).image_MDHW == small_store.read_case(case_id).image_MDHW).all()


def test_a_second_process_finds_what_the_first_filled(small_store: CohortStore, tmp_path: Path) -> None:
    for misses, hits in ((4, 0), (0, 4)):
        cache = DecodedCaseCache(open_store(small_store.uri), tmp_path / "cache", max_bytes=PLENTY)
        for case_id in small_store.case_ids:
            cache.read_case(case_id)
        assert (cache.misses, cache.hits) == (misses, hits)


def wait_for_a_tick(folder: Path) -> None:
    """Return when files get a later time than before: without, "least recently" would mean nothing."""
    probe = folder / "probe"
    probe.touch()
    before = probe.stat().st_mtime_ns
    while probe.stat().st_mtime_ns == before:
        os.utime(probe)


def test_the_bound_is_kept_and_the_least_recently_used_goes(small_store: CohortStore, tmp_path: Path) -> None:
    size = one_case_bytes(small_store)
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=2 * size)
    a, b, c, _ = small_store.case_ids
    for case_id in (a, b, a, c):
        cache.read_case(case_id)
        wait_for_a_tick(tmp_path)
        assert sum(path.stat().st_size for path in files_of(cache)) <= 2 * size
    assert [path.name.split("-")[0] for path in files_of(cache)] == [a, c]
    misses = cache.misses
    cache.read_case(a)
    assert cache.misses == misses


def test_decoding_ahead_fills_what_is_free_and_evicts_nothing(small_store: CohortStore, tmp_path: Path) -> None:
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=2 * one_case_bytes(small_store))
    a, b, c, _ = small_store.case_ids
    assert [cache.decode_ahead(case_id) for case_id in (a, a, b, c, a)] == [True, True, True, False, True]
    assert [path.name.split("-")[0] for path in files_of(cache)] == [a, b]
    assert [cache.holds(case_id) for case_id in (a, b, c)] == [True, True, False]
    assert files_of(cache, ".partial") == []
    assert (cache.read_case(b).image_MDHW == small_store.read_case(b).image_MDHW).all()
    assert (cache.misses, cache.hits) == (0, 1)
    assert cache.bytes_of([a, b]) == sum(path.stat().st_size for path in files_of(cache))


def test_decoding_ahead_leaves_a_case_to_whoever_decodes_it(small_store: CohortStore, tmp_path: Path) -> None:
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    case_id = small_store.case_ids[0]
    with cache._locked(f"{cache._path(small_store.info(case_id)).name}.lock"):
        assert cache.decode_ahead(case_id)  # and does not wait
    assert files_of(cache) == []
    assert cache.decode_ahead(case_id)
    assert len(files_of(cache)) == 1


def test_a_bound_below_one_case_names_the_least_that_works(small_store: CohortStore, tmp_path: Path) -> None:
    size = one_case_bytes(small_store)
    with pytest.raises(InputError, match=f"at least {size} bytes"):
        DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=size - 1)
    DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=size).read_case(small_store.case_ids[0])


@pytest.mark.parametrize("position", [0, -1, 1000])
def test_wrong_bytes_in_the_folder_are_replaced(
    small_store: CohortStore, tmp_path: Path, flip_byte: Callable[[Path, int], None], position: int
) -> None:
    case_id = small_store.case_ids[0]
    DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY).read_case(case_id)
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    flip_byte(files_of(cache)[0], position)
    assert (cache.read_case(case_id).image_MDHW == small_store.read_case(case_id).image_MDHW).all()
    assert cache.misses == 1


def test_a_truncated_file_is_replaced(small_store: CohortStore, tmp_path: Path) -> None:
    case_id = small_store.case_ids[0]
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    cache.read_case(case_id)
    os.truncate(files_of(cache)[0], 0)
    again = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    assert (again.read_case(case_id).image_MDHW == small_store.read_case(case_id).image_MDHW).all()


def test_damage_in_the_store_never_reaches_the_cache(
    small_store: CohortStore, tmp_path: Path, flip_byte: Callable[[Path, int], None]
) -> None:
    case_id = small_store.case_ids[0]
    flip_byte(Path(small_store.uri) / "cases" / case_id / "image" / "c" / "0" / "0" / "0" / "0", 500)
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    for decode in (cache.decode_ahead, cache.read_case):
        with pytest.raises(CorruptStoreError, match=case_id):
            decode(case_id)
        assert files_of(cache) == files_of(cache, ".partial") == []


def test_an_unlabelled_case(small_store: CohortStore, tmp_path: Path) -> None:
    store = open_store(small_store.uri)
    cache = DecodedCaseCache(store, tmp_path / "cache", max_bytes=PLENTY)
    assert cache.read_case(store.case_ids[0]).label_DHW is not None


def fill_and_die(uri: str, folder: Path, case_id: str) -> None:
    """Fill a case, but be killed when half of it is written."""
    cache = DecodedCaseCache(open_store(uri), folder, max_bytes=PLENTY)

    def die(*_: object) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    storage.store.cache.google_crc32c.extend = die
    cache.read_case(case_id)


@pytest.mark.processes
def test_a_killed_process_leaves_no_wrong_bytes(small_store: CohortStore, tmp_path: Path) -> None:
    case_id = small_store.case_ids[0]
    process = multiprocessing.get_context("spawn").Process(
        target=fill_and_die, args=(small_store.uri, tmp_path / "cache", case_id)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=one_case_bytes(small_store))
    assert len(files_of(cache, ".partial")) == 1
    assert files_of(cache) == []
    # The leftover is swept, so that even a bound of one case has room.
    assert (cache.read_case(case_id).image_MDHW == small_store.read_case(case_id).image_MDHW).all()
    assert files_of(cache, ".partial") == []


def read_all(uri: str, folder: Path, max_bytes: int, seed: int) -> tuple[int, bool]:
    """Read 12 times in another process: how often a case was streamed, and whether voxels and bound were right."""
    store = open_store(uri)
    cache = DecodedCaseCache(store, folder, max_bytes=max_bytes)
    random = np.random.default_rng(seed)
    good = True
    for case_id in random.choice(store.case_ids, 12):
        mean = float(cache.read_case(case_id).image_MDHW.mean())
        good = good and mean == float(store.read_case(case_id).image_MDHW.mean())
        good = good and _used_bytes(cache.folder) <= max_bytes
    return cache.misses, good


def _used_bytes(folder: Path) -> int:
    """What was listed at one moment and is still there: others evict and rename meanwhile, so never too much."""
    used = 0
    for path in list(folder.iterdir()):
        if path.suffix in (".case", ".partial"):
            with suppress(FileNotFoundError):
                used += path.stat().st_size
    return used


@pytest.mark.parametrize(("room", "misses"), [(4, 4), (2, None)])
@pytest.mark.processes
def test_several_processes_share_one_folder(
    small_store: CohortStore, tmp_path: Path, room: int, misses: int | None
) -> None:
    max_bytes = room * one_case_bytes(small_store)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
        reads = [processes.submit(read_all, small_store.uri, tmp_path / "cache", max_bytes, seed) for seed in range(2)]
        found = [read.result(timeout=120) for read in reads]
    assert all(good for _, good in found)
    if misses is not None:  # with room for all, each case is streamed once by one of them
        assert sum(count for count, _ in found) == misses


def test_the_disk_gets_back_what_was_evicted_while_it_was_mapped(small_store: CohortStore, tmp_path: Path) -> None:
    bound = one_case_bytes(small_store)
    ours, other = (DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=bound) for _ in range(2))
    a, b, c, d = small_store.case_ids
    for case_id in (a, b, c):
        ours.read_case(case_id)
        assert _still_mapped(ours.folder) == []
    other.read_case(d)  # evicts what the first still has mapped, until it makes room itself
    ours.read_case(a)
    other.read_case(b)
    ours.read_case(c)
    assert len(_still_mapped(ours.folder)) <= 1


def _still_mapped(folder: Path) -> list[str]:
    """Files of the folder that this process has mapped and that are deleted: their blocks are not free."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(folder) in line and line.endswith("(deleted)")]


def test_a_file_changes_its_name_only_under_the_folders_lock(
    small_store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever counts the folder's bytes to make room would otherwise miss the file between its two names."""
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    rename, renamed = Path.rename, []

    def watched(path: Path, target: Path) -> Path:
        with (cache.folder / "folder.lock").open("ab") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        renamed.append(target)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", watched)
    cache.read_case(small_store.case_ids[0])
    assert renamed == files_of(cache)


def test_a_full_disk_is_said_in_one_line(
    small_store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.store.cache.os, "posix_fallocate", full)
    cache = DecodedCaseCache(small_store, tmp_path / "cache", max_bytes=PLENTY)
    with pytest.raises(InputError, match="is full; free space"):
        cache.read_case(small_store.case_ids[0])
    assert files_of(cache, ".partial") == []
