"""A disk that is full when a checkpoint is due, on a real filesystem of four megabytes. Wants root."""

import dataclasses
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch

from ray_jobs.checkpoints.checkpoint import CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.on_ray.conversion import convert_cohort
from ray_jobs.on_ray.session import LocalSession, Progress
from ray_jobs.settings.presets import preset
from ray_jobs.training.plan import TrainPlan
from ray_jobs.training.train_loop import train
from storage import assign_splits, open_store

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class Filling(LocalSession):
    """A session whose disk is full during the steps of the second epoch, of three each."""

    def __init__(self, disk: Path, second_was_tried: threading.Event) -> None:
        super().__init__(disk / "run", torch.device("cpu"))
        self._second_was_tried = second_was_tried
        self.told: list[str] = []
        self._filler, self._steps = disk / "filler", 0

    def tell(self, progress: Progress) -> None:
        self.told.append(progress.message)

    def stop_asked(self) -> bool:
        self._steps += 1
        if self._steps == 4:
            until = time.monotonic() + 120  # for the checkpoint of the first epoch, written in the background
            while (newest := CheckpointStore(self.folder).newest()) is None or newest.position != (1, 0):
                assert time.monotonic() < until, newest
                time.sleep(0.1)
            with self._filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(4096))
        if self._steps == 7:  # the checkpoint of the second epoch is written in the background too
            assert self._second_was_tried.wait(120)
            self._filler.unlink()
        return False


@pytest.fixture
def second_was_tried(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once the checkpoint of the second epoch has been written, or not."""
    tried, save = threading.Event(), CheckpointStore.save

    def noted(self: CheckpointStore, which: CheckpointRecord, files: Mapping[str, bytes]) -> None:
        try:
            save(self, which, files)
        finally:
            if which.epoch == 2:
                tried.set()

    monkeypatch.setattr(CheckpointStore, "save", noted)
    return tried


def test_a_full_disk_costs_its_checkpoint_and_nothing_else(
    small_disk: Path, second_was_tried: threading.Event, phantom_source: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "phantom.zarr")
    convert_cohort(phantom_source, store)
    demo = preset("demo")
    config = dataclasses.replace(
        demo,
        epochs=3,
        sampling=dataclasses.replace(demo.sampling, patch_shape=(16, 16, 16), patches_per_epoch=12),
        model=dataclasses.replace(demo.model, widths=(4, 8), deep_supervision=0),
        validation=dataclasses.replace(demo.validation, overlap=0.0, window_batch=16),
    )
    session = Filling(small_disk, second_was_tried)
    splits = assign_splits(open_store(store).infos())
    result = train(TrainPlan(config=config, store=store, splits=splits, cache=tmp_path / "cache"), session)

    lost = [line for line in session.told if "could not be written" in line]
    assert lost
    assert all("checkpoint_epoch_0002 could not be written" in line and "is full" in line for line in lost)
    assert len([line for line in session.told if line.startswith("no more events for TensorBoard")]) == 1
    kept = CheckpointStore(session.folder).records()
    assert [record.position for record in kept if record.epoch == 2] == []
    assert kept[-1].position == (3, 0)
    assert [figures["epoch"] for figures in result["history"]] == [1, 2, 3]
