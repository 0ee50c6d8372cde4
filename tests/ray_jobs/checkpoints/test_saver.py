"""When checkpoints are taken, what is kept of them, and what happens when they cannot be written."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from ray_jobs.checkpoints import saver as saver_module
from ray_jobs.checkpoints.checkpoint import CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.checkpoints.saver import Saver
from ray_jobs.on_ray.agreement import Wish
from ray_jobs.on_ray.session import LocalSession
from ray_jobs.settings.groups import CheckpointConfig
from storage import InputError
from storage.store.objects import Objects

FILES = {"model.safetensors": b"weights", "state.pt": b"state"}


def record(epoch: int, step: int = 0, iou: float | None = None) -> CheckpointRecord:
    return CheckpointRecord(epoch=epoch, step=step, metrics={} if iou is None else {"iou_mean": iou})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep_best=2)
    for epoch, iou in enumerate((0.3, 0.6, 0.5, 0.4), start=1):
        store.save(record(epoch, iou=iou), FILES)
    store.save(record(4, step=7), FILES)
    assert names(tmp_path) == ["checkpoint_epoch_0002", "checkpoint_epoch_0003", "checkpoint_epoch_0004_step_000007"]
    assert store.newest() == record(4, step=7)
    assert store.best() == record(2, iou=0.6)
    assert [each.position for each in store.records()] == [(2, 0), (3, 0), (4, 7)]


def test_a_checkpoint_without_its_record_does_not_count_and_goes_with_the_next(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    store.save(record(1, iou=0.5), FILES)
    half = tmp_path / "checkpoint_epoch_0001_step_000009"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"wei")
    assert store.newest() == record(1, iou=0.5)
    store.save(record(2, iou=0.6), FILES)
    assert names(tmp_path) == ["checkpoint_epoch_0002"]


def test_a_write_that_fails_at_any_file_leaves_the_earlier_ones_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(str(tmp_path))
    store.save(record(1, iou=0.5), FILES)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    put = Objects.put
    for failing in (*FILES, "record.json"):

        def refuse(self: Objects, key: str, data: bytes, failing: str = failing) -> None:
            if key.endswith(failing):
                raise InputError("the disk is full")
            put(self, key, data)

        monkeypatch.setattr(Objects, "put", refuse)
        with pytest.raises(InputError, match="full"):
            store.save(record(2, iou=0.6), FILES)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert store.best() == store.newest() == record(1, iou=0.5)


class Told(LocalSession):
    """A session that may be told to stop, and that may lose its node."""

    stop = False
    goes_at: float | None = None
    looks = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, torch.device("cpu"))
        self.marks: list[str] = []

    def stop_asked(self) -> bool:
        return self.stop

    def node_goes_at(self) -> float | None:
        self.looks += 1
        return self.goes_at

    def mark(self, moment: str, step: int = 0) -> None:
        self.marks.append(moment)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Move time on by that many seconds."""
    now = [1000.0]
    monkeypatch.setattr(saver_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(saver_module.time, "time", lambda: now[0])
    monkeypatch.setattr(saver_module.time, "sleep", lambda seconds: move(seconds))

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


def test_checkpoints_are_due_by_steps_and_by_the_clock(tmp_path: Path, clock: Callable[[float], None]) -> None:
    config = CheckpointConfig(every_steps=3, every_minutes=2)
    with Saver(Told(tmp_path), config, print) as saver:
        assert [saver.after_step(step) & Wish.CHECKPOINT for step in range(1, 7)] == [0, 0, 1, 0, 0, 1]
        clock(119)
        assert not saver.after_step(7) & Wish.CHECKPOINT
        clock(2)
        assert saver.after_step(8) & Wish.CHECKPOINT
        assert not saver.after_step(8) & Wish.CHECKPOINT


def test_what_a_lost_node_costs_at_most_is_the_interval_writing_included(
    tmp_path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    save = CheckpointStore.save

    def take_half_a_minute(self: CheckpointStore, which: CheckpointRecord, files: Mapping[str, bytes]) -> None:
        clock(30)
        save(self, which, files)

    monkeypatch.setattr(CheckpointStore, "save", take_half_a_minute)
    with Saver(Told(tmp_path), CheckpointConfig(every_minutes=2), print) as saver:
        saver.save(record(0, 1), lambda: FILES)
        begun = time.monotonic()
        saver.wait()
        while not saver.after_step(2) & Wish.CHECKPOINT:
            clock(1)
        saver.save(record(0, 2), lambda: FILES)
        saver.wait()
        assert time.monotonic() - begun <= 120


def test_before_a_validation_a_minute_of_training_is_saved(tmp_path: Path, clock: Callable[[float], None]) -> None:
    with Saver(Told(tmp_path), CheckpointConfig(), print) as saver:
        clock(59)
        assert not saver.after_step(3, last=True) & Wish.CHECKPOINT
        clock(2)
        assert not saver.after_step(1) & Wish.CHECKPOINT
        assert saver.after_step(2, last=True) & Wish.CHECKPOINT
        saver.save(record(1, 2), lambda: FILES)
        assert not saver.after_step(3, last=True) & Wish.CHECKPOINT


def test_a_notice_means_a_checkpoint_now_and_often(tmp_path: Path, clock: Callable[[float], None]) -> None:
    session, told = Told(tmp_path), list[str]()
    with Saver(session, CheckpointConfig(), told.append) as saver:
        assert not saver.after_step(1) & Wish.CHECKPOINT
        assert session.looks == 0  # looking costs a round of messages: not at every step
        session.goes_at = time.time() + 120
        clock(6)
        assert saver.after_step(2) & Wish.CHECKPOINT
        assert told == ["a node is about to be taken away: saving now, and often from here on"]
        saver.save(record(0, 2), lambda: FILES)
        saver.wait()
        clock(6)
        assert not saver.after_step(3) & Wish.CHECKPOINT
        clock(10)
        assert saver.after_step(4) & Wish.CHECKPOINT
        assert len(told) == 1


def test_before_a_node_goes_it_saves_and_does_no_step_more(tmp_path: Path, clock: Callable[[float], None]) -> None:
    session, told = Told(tmp_path), list[str]()
    with Saver(session, CheckpointConfig(), told.append) as saver:
        session.goes_at = time.time() + 120
        clock(6)
        assert not saver.after_step(1) & Wish.LEAVE
        clock(103)
        assert not saver.after_step(2) & Wish.LEAVE
        clock(2)
        assert saver.after_step(3) & (Wish.LEAVE | Wish.CHECKPOINT) == Wish.LEAVE | Wish.CHECKPOINT
        saver.save(record(0, 3), lambda: FILES)
        saver.leave()  # the node stays, against all notices
        assert time.time() >= session.goes_at + 60
        assert session.marks == ["notice", "left"]
        assert told[-1] == "the node that was to go is still there: going on"
        assert not saver.after_step(4) & Wish.LEAVE


def test_a_wish_to_stop_saves_first(tmp_path: Path) -> None:
    session = Told(tmp_path)
    with Saver(session, CheckpointConfig(), print) as saver:
        session.stop = True
        assert saver.after_step(1) & (Wish.STOP | Wish.CHECKPOINT) == Wish.STOP | Wish.CHECKPOINT


def refuse_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: CheckpointStore, which: CheckpointRecord, files: Mapping[str, bytes]) -> None:
        raise InputError("the disk that holds it is full")

    monkeypatch.setattr(CheckpointStore, "save", refuse)


def test_after_a_failure_the_run_goes_on_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[str]()
    refuse_to_save(monkeypatch)
    with Saver(Told(tmp_path), CheckpointConfig(on_failure="continue"), told.append) as saver:
        saver.save(record(1), lambda: FILES)
        saver.wait()
        assert not saver.after_step(1) & Wish.STOP
        assert len(told) == 1
        assert "checkpoint_epoch_0001 could not be written (the disk that holds it is full)" in told[0]
        assert "the run goes on" in told[0]


def test_after_a_failure_the_run_ends_where_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_save(monkeypatch)
    with Saver(Told(tmp_path), CheckpointConfig(on_failure="stop"), print) as saver:
        saver.save(record(1), lambda: FILES)
        saver.wait()
        assert saver.after_step(1) & Wish.STOP
        assert saver.failure is not None
        assert "the disk that holds it is full" in saver.failure


def test_an_epochs_last_checkpoint_is_marked_when_it_is_there_and_no_other(tmp_path: Path) -> None:
    session = Told(tmp_path)
    with Saver(session, CheckpointConfig(every_minutes=None), print) as saver:
        saver.save(record(1, step=2), lambda: FILES)
        saver.wait()
        assert "saved" not in session.marks
        saver.save(record(1, iou=0.5), lambda: FILES)
        saver.wait()
        assert session.marks == ["saved"] and saver.store.best() == record(1, iou=0.5)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write = threading.Event()
    save = CheckpointStore.save

    def save_slowly(self: CheckpointStore, which: CheckpointRecord, files: Mapping[str, bytes]) -> None:
        assert may_write.wait(60)
        save(self, which, files)

    monkeypatch.setattr(CheckpointStore, "save", save_slowly)
    with Saver(Told(tmp_path), CheckpointConfig(), print) as saver:
        saver.save(record(1), lambda: FILES)  # returns, or the test would wait for ever
        assert saver.store.newest() is None
        may_write.set()
    assert CheckpointStore(str(tmp_path)).newest() == record(1)
