"""The checkpoints of a run folder, on disk or S3. The folder is the truth: no list of them is kept anywhere else.

Ray Train's own bookkeeping lags behind by a report when a worker dies; here a checkpoint counts as soon as it is whole.
"""

from collections.abc import Mapping
from contextlib import suppress

from ray_jobs.checkpoints.checkpoint import RECORD, Checkpoint, CheckpointRecord
from storage import InputError
from storage.store.objects import Objects

BEST = "best"  # where a search keeps a copy of its best checkpoint


class CheckpointStore:
    """Checkpoints in the run folder at `uri`, which is made where it is a local path that does not exist."""

    def __init__(self, uri: str, *, keep_best: int = 1) -> None:
        self._run = Objects(uri, create=True)
        self._keep_best = keep_best

    def records(self) -> list[CheckpointRecord]:
        """All whole checkpoints, earliest first."""
        names = self._names()
        while True:  # what another process saved or deleted while this one read is looked at again
            found = self._run.get_many([f"{name}/{RECORD}" for name in names])
            before, names = names, self._names()
            if names == before:
                break
        return sorted((CheckpointRecord.decode(raw) for raw in found if raw), key=lambda record: record.position)

    def newest(self) -> CheckpointRecord | None:
        """The one to go on from."""
        return next(iter(self.records()[::-1]), None)

    def best(self) -> CheckpointRecord | None:
        """The one whose validation has the highest score, the earliest of equals; of no validation the last epoch's."""
        return next(iter(by_score(self.records())), None)

    def open(self, record: CheckpointRecord) -> Checkpoint:
        """The checkpoint's content."""
        return Checkpoint(self._run, record.name)

    def save(self, record: CheckpointRecord, files: Mapping[str, bytes]) -> None:
        """Write a checkpoint, then delete those that are no longer wanted.

        Raises InputError, with the earlier checkpoints as they were and nothing left of this one, where it cannot.
        """
        try:
            for name, content in files.items():
                self._run.put(f"{record.name}/{name}", content)
            self._run.put(f"{record.name}/{RECORD}", record.encode())
        except InputError:
            self._delete(record.name)
            raise
        with suppress(InputError):  # it is whole; what cannot be looked at now goes with a later checkpoint
            records = self.records()
            kept = {each.name for each in (*by_score(records)[: self._keep_best], *records[-1:])}
            for name in self._names():
                if name not in kept:  # those that a killed writer left unfinished too
                    self._delete(name)

    def _names(self) -> list[str]:
        return [name for name in self._run.folders("") if name.startswith("checkpoint_")]

    def _delete(self, name: str) -> None:
        try:
            self._run.delete(f"{name}/{RECORD}")  # first, so that half a checkpoint never counts as one
            self._run.delete_folder(name)
        except InputError:  # what cannot be deleted now goes with a later checkpoint
            return


def by_score(records: list[CheckpointRecord]) -> list[CheckpointRecord]:
    """The validated ones, best first; of a run that validates on no case those of whole epochs, last first."""
    validated = [record for record in records if record.score is not None]
    if not validated:
        return [record for record in records[::-1] if not record.step]
    return sorted(validated, key=lambda record: -(record.score or 0.0))
