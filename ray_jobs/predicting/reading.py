"""How one case that is to be predicted is read, from a store or from its files. Knows no Ray."""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache

from storage import Case, CohortStore, HeldCase, Task, open_store
from storage.store.held_case import hold_source, hold_stored


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreInput:
    """Cases of the store at `uri`. Small enough to be sent to every worker."""

    uri: str

    def read(self, case_id: str) -> HeldCase:
        """The case; raises InputError naming what is damaged."""
        return hold_stored(_open_once(self.uri), case_id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderInput:
    """Cases as files, each with what its values mean, which the worker that predicts one reads and checks."""

    cases: Mapping[str, Case]
    modalities: tuple[str, ...]
    task: Task

    def read(self, case_id: str) -> HeldCase:
        """The case; raises InputError with file, finding and remedy."""
        case = self.cases[case_id]
        return hold_source(case, self.modalities, case.convention or self.task.convention, self.task)


@lru_cache(maxsize=1)
def _open_once(uri: str) -> CohortStore:
    return open_store(uri)
