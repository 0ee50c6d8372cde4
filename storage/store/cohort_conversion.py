"""A whole cohort's conversion, but for who runs it: what is to do, what came of it, and the report.

The driver calls `plan_conversion`, has `convert_or_refuse` run once for each planned case (here or as Ray tasks), and
calls `finish_conversion`. Only the driver writes the index.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from storage.cases.info import CaseInfo, SourceFile, canonical_json
from storage.errors import CaseRefusedError, InputError, Refusal
from storage.scans.case import Case, files_of
from storage.scans.listing import ScanFile
from storage.scans.nifti import file_digest
from storage.store.case_conversion import convert_case
from storage.store.cohort_store import CohortStore

REPORT_KEY = "report.json"


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """Cases to convert (new ones and `changed` ones), and cases that are stored already from the same files."""

    todo: tuple[Case, ...]
    changed: tuple[str, ...]
    skipped: tuple[str, ...]

    def of(self, case_ids: Collection[str]) -> "ConversionPlan":
        """What is planned of these cases."""
        return ConversionPlan(
            todo=tuple(case for case in self.todo if case.case_id in case_ids),
            changed=tuple(case_id for case_id in self.changed if case_id in case_ids),
            skipped=tuple(case_id for case_id in self.skipped if case_id in case_ids),
        )


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did. `changed` are those of `converted` that were stored from other bytes before.

    `notices` are a line each: what was mended in files, left out of side files, or is odd about the cohort.
    """

    store_uri: str
    task: str
    converted: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    notices: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> bytes:
        """The report as report.json holds it."""
        document: dict[str, Any] = asdict(self)
        return canonical_json(document) + b"\n"


def plan_conversion(
    cases: Iterable[Case], stored: Mapping[str, CaseInfo], *, subjects: Mapping[str, str] | None = None
) -> ConversionPlan:
    """Compare the cases with the committed ones: by size and time of each file, and by SHA-256 where those differ.

    A case whose subject was told in `subjects` and is another in its record has changed, too.
    """
    told = subjects or {}
    todo: list[Case] = []
    changed: list[str] = []
    skipped: list[str] = []
    for case in cases:
        info = stored.get(case.case_id)
        if info is None:
            todo.append(case)
        elif _same_sources(case, info) and told.get(case.case_id, info.subject) == info.subject:
            skipped.append(case.case_id)
        else:
            todo.append(case)
            changed.append(case.case_id)
    return ConversionPlan(todo=tuple(todo), changed=tuple(changed), skipped=tuple(skipped))


def convert_or_refuse(case: Case, store: CohortStore) -> CaseInfo | Refusal:
    """`convert_case`, with a refusal as a value: what a worker returns to the driver."""
    try:
        return convert_case(case, store)
    except CaseRefusedError as error:
        return error.refusal


def finish_conversion(store: CohortStore, earlier: Iterable[str]) -> list[Refusal]:
    """Take out cases that hold the voxels of another, then list the rest in the index.

    Of two equal cases the one in `earlier` stays (it was stored before), else the one whose id sorts first.
    """
    before = set(earlier)
    committed = store.committed_cases()
    refused: list[Refusal] = []
    owner: dict[str, str] = {}
    for case_id in sorted(committed, key=lambda name: (name not in before, name)):
        info = committed[case_id]
        first = owner.setdefault(info.arrays["image"].content_sha256, case_id)
        if first == case_id:
            continue
        refused.append(
            Refusal(
                case_id=case_id,
                file=", ".join(source.name for source in info.sources.values()),
                finding=f"the same voxels as case {first}",
                remedy="keep one of the two folders, so that no scan is in training and in test",
            )
        )
        store.remove_case(case_id)
        del committed[case_id]
    store.rebuild_index(committed)
    return refused


def _same_sources(case: Case, info: CaseInfo) -> bool:
    paths = files_of(case)
    if set(paths) != set(info.sources):
        return False
    return all(_same_file(paths[role], source) for role, source in info.sources.items())


def _same_file(path: ScanFile, source: SourceFile) -> bool:
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"cannot look at {path}: {error.strerror or error}") from None
    if state.st_size != source.size:
        return False
    return state.st_mtime_ns == source.mtime_ns != 0 or file_digest(path) == source.sha256
