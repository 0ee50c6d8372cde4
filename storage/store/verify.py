"""Every byte of a store read again and compared with what its records say."""

from collections.abc import Mapping

from storage.cases.info import CaseInfo
from storage.errors import CorruptStoreError
from storage.scans.listing import ScanFile
from storage.scans.nifti import file_digest
from storage.store.cohort_store import CohortStore, case_key
from storage.store.index import ROOT_KEY, encode_case


def verify_case(store: CohortStore, case_id: str, files: Mapping[str, ScanFile] | None = None) -> tuple[str, ...]:
    """What is wrong with one case, one line each; empty when all its bytes are the ones that were written.

    With `files` (role to path, "label" among the roles) the source files are compared with the record, too.
    """
    info = store.info(case_id)
    problems: list[str] = []
    raw = store.objects.get(case_key(case_id, ROOT_KEY))
    if raw != encode_case(info):
        problems.append(f"case {case_id}: its record differs from the store's index")
    try:
        store.read_case(case_id)
        if info.labelled:
            store.foreground(case_id)
    except CorruptStoreError as error:
        problems.append(str(error))
    return (*problems, *compare_files(info, files or {}))


def compare_files(info: CaseInfo, files: Mapping[str, ScanFile]) -> tuple[str, ...]:
    """Which of a case's source files are not those that its record says, one line each."""
    problems: list[str] = []
    for role, path in files.items():
        source = info.sources.get(role)
        if source is None or file_digest(path) != source.sha256:
            problems.append(f"case {info.case_id}: {path} is not the file that was converted")
    return tuple(problems)
