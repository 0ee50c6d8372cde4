"""Nothing stays behind: threads, processes, shared memory, half-written files; and memory does not grow."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from dali_pipelines import AUGMENTATION_PRESETS, PatchLoader, SamplingConfig, VolumeLoader
from storage import CohortStore

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("feeding_process.py")
SHARED_MEMORY = Path("/dev/shm")

SMALL = SamplingConfig(patch_shape=(6, 8, 7), global_batch_size=2, patches_per_epoch=1000)


def our_threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith(("patch-feed", "read-patch", "volume-feed"))}


def open_loader(cache: Any) -> PatchLoader:
    return PatchLoader(cache, list(cache.cases), sampling=SMALL, augmentation=AUGMENTATION_PRESETS["light"])


@pytest.mark.parametrize("how", ["close", "exception", "forgotten", "replaced"])
def test_no_thread_outlives_its_loader(make_cache: Callable[..., Any], how: str) -> None:
    cache = make_cache(2)
    loader = open_loader(cache)
    next(iter(loader))
    assert {"patch-feed"} <= our_threads()
    if how == "close":
        loader.close()
    elif how == "exception":
        cache.broken = set(cache.cases)
        with pytest.raises(Exception, match="could not be read"), loader:
            list(loader)
    elif how == "forgotten":
        del loader
        gc.collect()
    else:
        loader.load_state_dict(loader.state_dict())
    assert our_threads() == set()


def test_a_thread_other_than_the_main_one_may_feed(make_cache: Callable[..., Any]) -> None:
    """As in a Ray Train worker, where the training function does not run in the main thread."""
    cases: list[tuple[str, ...]] = []

    def train() -> None:
        with open_loader(make_cache(2)) as loader:
            cases.extend(batch.case_ids for _, batch in zip(range(3), loader, strict=False))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(timeout=60)
    assert len(cases) == 3
    assert our_threads() == set()


def test_no_thread_outlives_a_volume_loop(make_cache: Callable[..., Any]) -> None:
    volumes = iter(VolumeLoader(make_cache(3), ["case_0", "case_1", "case_2"]))
    next(volumes)
    assert our_threads() == {"volume-feed"}
    volumes.close()  # type: ignore[attr-defined]
    assert our_threads() == set()


@pytest.mark.parametrize("how", ["exit", "raise", "SIGTERM", "SIGKILL"])
@pytest.mark.processes
def test_no_process_or_shared_memory_outlives_the_feeding_process(
    phantom_store: CohortStore, tmp_path: Path, how: str
) -> None:
    shared_before = set(SHARED_MEMORY.iterdir())
    stop_how = how if how in ("exit", "raise") else "wait"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), phantom_store.uri, str(tmp_path / "cache"), stop_how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if stop_how == "wait":
            # Threads alone do the work: there is no child that could be orphaned.
            assert psutil.Process(process.pid).children(recursive=True) == []
            process.send_signal(getattr(signal, how))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == {"exit": 0, "raise": 1, "SIGTERM": -15, "SIGKILL": -9}[how]
    assert ("RuntimeError: as asked" in errors) == (how == "raise")
    assert ("Traceback" in errors) == (how == "raise")
    mine = [path for path in set(SHARED_MEMORY.iterdir()) - shared_before if str(process.pid) in path.name]
    assert mine == []
    assert list((tmp_path / "cache").rglob("*.partial")) == []


@pytest.mark.slow
def test_memory_is_flat_over_500_batches(make_cache: Callable[..., Any]) -> None:
    """One batch is 0.9 MB: a leak of one in fifty would show."""
    sampling = SamplingConfig(patch_shape=(16, 40, 40), global_batch_size=2, patches_per_epoch=1000)
    cache = make_cache(3, (20, 44, 44))
    process = psutil.Process()
    resident = []
    with PatchLoader(cache, list(cache.cases), sampling=sampling, augmentation=AUGMENTATION_PRESETS["light"]) as loader:
        for step, _ in enumerate(loader):
            if step % 50 == 49:
                resident.append(process.memory_info().rss)
    assert len(resident) == 10
    assert max(resident[5:]) - max(resident[:5]) < 8e6
