"""When a checkpoint is due, and writing it while training goes on."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from ray_jobs.checkpoints.checkpoint import CheckpointRecord
from ray_jobs.checkpoints.checkpoint_store import CheckpointStore
from ray_jobs.on_ray.agreement import Agreement, Wish
from ray_jobs.on_ray.session import Session
from ray_jobs.settings.groups import CheckpointConfig

SECONDS_BETWEEN_LOOKS = 5.0  # for notices: a spot instance gets two minutes
SECONDS_BETWEEN_BREATHS = 0.2
SECONDS_ON_NOTICE = 15.0  # between checkpoints when a node is about to go
SECONDS_TO_LEAVE = 10.0  # before a node goes, beside twice what a checkpoint took: from then on no step is done
SECONDS_AFTER_THE_END = 60.0  # within which a node that was to go is gone; else training goes on
SECONDS_WORTH_SAVING = 60.0  # of training, before a validation, which may take long and looks for no notices


class Saver:
    """Decides alike on every rank; writes on rank 0, in the background, one checkpoint at a time.

    Use it as a context manager: leaving it waits for what is being written. `tell` shows a line to whoever watches.
    """

    def __init__(self, session: Session, config: CheckpointConfig, tell: Callable[[str], None]) -> None:
        self.store = CheckpointStore(session.folder, keep_best=config.keep_best)
        self._session, self._config, self._tell = session, config, tell
        self._agreement = Agreement(session.world_size)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: tuple[CheckpointRecord, Future[None]] | None = None
        self._goes_at: float | None = None  # when a node goes that the run knows of
        self._leaving = False
        self._seconds_to_write = 0.0  # of the last checkpoint
        self.failure: str | None = None  # why the run has to end, where it was told to end at a failure
        self._saved_at = self._looked_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self._pool.shutdown()

    def after_step(self, step: int, *, last: bool = False) -> Wish:
        """Return what is to be done after step `step` of the epoch, the same on every rank. Every rank must call it.

        last: no step of this epoch follows, but often a validation.
        """
        agreed = self._agreement.exchange(self._own_wish(last=last))
        if last:
            agreed |= self._agreement.finish()
        if agreed & Wish.LOOK_FOR_NOTICES and self._goes_at is None:
            self._goes_at = self._session.node_goes_at()
            if self._goes_at is not None:
                self._session.mark("notice")
                self._tell("a node is about to be taken away: saving now, and often from here on")
                agreed |= Wish.CHECKPOINT
        every = self._config.every_steps
        if every is not None and step % every == 0:
            agreed |= Wish.CHECKPOINT
        if agreed & (Wish.STOP | Wish.LEAVE):
            agreed |= Wish.CHECKPOINT
        return agreed

    def leave(self) -> None:
        """Wait for the checkpoint, and then to be ended: a step that is done now would be done again.

        Returns where the node stays after all. Every rank must call it.
        """
        self.wait()
        self._session.mark("left")
        self._tell("saved; no further step before the node is gone")
        until = (self._goes_at or time.time()) + SECONDS_AFTER_THE_END
        while time.time() < until:
            time.sleep(SECONDS_BETWEEN_BREATHS)
        self._tell("the node that was to go is still there: going on")

    def save(self, record: CheckpointRecord, encode: Callable[[], Mapping[str, bytes]]) -> None:
        """Start writing a checkpoint; waits only while an earlier one is still being written."""
        self.wait()
        if self._session.rank == 0 and self.failure is None:
            files = encode()
            self._writing = record, self._pool.submit(self._write, record, files)
        self._saved_at = time.monotonic()

    def _write(self, record: CheckpointRecord, files: Mapping[str, bytes]) -> None:
        begun = time.monotonic()
        self.store.save(record, files)
        self._seconds_to_write = time.monotonic() - begun
        if not record.step:
            self._session.mark("saved")  # with a validation, where there are cases for one

    def wait(self) -> None:
        """Wait until nothing is being written; tell of what could not be."""
        if self._writing is None:
            return
        record, writing = self._writing
        self._writing = None
        try:
            writing.result()
        except Exception as error:
            failure = f"{record.name} could not be written ({error}); earlier checkpoints are as they were"
            if self._config.on_failure == "stop":
                self.failure = f"{failure}, and --checkpoints.on-failure is stop: mend it, the same command goes on"
            else:
                self._tell(f"{failure}, the run goes on")

    def _own_wish(self, *, last: bool) -> Wish:
        wish = Wish.NOTHING
        if self._session.rank > 0:
            return wish
        now = time.monotonic()
        if self._writing is not None and self._writing[1].done():
            self.wait()
        if self._session.stop_asked() or self.failure is not None:
            wish |= Wish.STOP
        # Where writing takes longer than the time between checkpoints, training does not wait for it.
        pause = min(self._pause(), SECONDS_WORTH_SAVING) if last else self._pause()
        if now - self._saved_at >= pause and self._writing is None:
            self._saved_at = now  # wished for once: the answer comes a step later
            wish |= Wish.CHECKPOINT
        if now - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self._looked_at = now
            wish |= Wish.LOOK_FOR_NOTICES
        if self._goes_at is not None and not self._leaving:
            self._leaving = time.time() >= self._goes_at - SECONDS_TO_LEAVE - 2 * self._seconds_to_write
            wish |= Wish.LEAVE if self._leaving else Wish.NOTHING
        return wish

    def _pause(self) -> float:
        """Seconds from a checkpoint's beginning to the next's. Writing is part of it: more than that is never lost."""
        minutes = self._config.every_minutes
        seconds = float("inf") if minutes is None else 60 * minutes
        return (seconds if self._goes_at is None else min(seconds, SECONDS_ON_NOTICE)) - self._seconds_to_write
