"""One case in memory, from a store or straight from its NIfTI files, the same either way: what prediction reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from storage.cases.info import ArrayRecord, CaseArrays, CaseInfo, content_digest
from storage.errors import CaseRefusedError, InputError
from storage.labels.conventions import LabelConvention
from storage.labels.tasks import Task
from storage.scans.case import Case
from storage.store.case_conversion import read_source_case
from storage.store.cohort_store import CohortStore


@dataclass(frozen=True, kw_only=True)
class HeldCase:
    """A case's record, voxels (image MDHW, label DHW or None) and task, and what its own values mean.

    `label_refused` says why its label was left out, where there was one to leave out.
    """

    case: CaseInfo
    arrays: CaseArrays
    task: Task
    convention: LabelConvention
    label_refused: str | None = None

    def info(self, case_id: str) -> CaseInfo:
        """The record; raises InputError for another case."""
        if case_id != self.case.case_id:
            raise InputError(f"wanted case {case_id}, only {self.case.case_id} is held")
        return self.case

    def read_case(self, case_id: str) -> CaseArrays:
        """The whole case: image MDHW, label DHW or None."""
        self.info(case_id)
        return self.arrays


def hold_stored(store: CohortStore, case_id: str) -> HeldCase:
    """Read a case from its store, compared with its checksums; raises CorruptStoreError naming what is damaged."""
    info = store.info(case_id)
    return HeldCase(case=info, arrays=store.read_case(case_id), task=store.task, convention=store.convention_of(info))


def hold_source(case: Case, modalities: Sequence[str], convention: LabelConvention, task: Task) -> HeldCase:
    """Read a case from its files, as a conversion into a store of `task` would.

    A modality that the case does not have is 0 everywhere, with a mean and a deviation of 0, and noted. Raises
    InputError with file, finding and remedy. A label that a conversion would refuse is left out, and said to be: a
    prediction does not need it.
    """
    there = tuple(modality for modality in modalities if modality in case.files)
    try:
        arrays, info = read_source_case(case, there, convention, skull_stripped=task.skull_stripped)
    except CaseRefusedError as error:
        if case.label is None or error.refusal.file != str(case.label):
            raise InputError(str(error)) from None
        held = hold_source(replace(case, label=None), modalities, convention, task)
        return replace(held, label_refused=str(error.refusal))
    if len(there) < len(modalities):
        arrays, info = _with_missing(arrays, info, modalities)
    named = {"image": arrays.image_MDHW, "label": arrays.label_DHW}
    records = {
        name: ArrayRecord(
            shape=array.shape, dtype=array.dtype.name, metadata_sha256="", content_sha256=content_digest(array)
        )
        for name, array in named.items()
        if array is not None
    }
    return HeldCase(case=replace(info, arrays=records), arrays=arrays, task=task, convention=convention)


def _with_missing(arrays: CaseArrays, info: CaseInfo, modalities: Sequence[str]) -> tuple[CaseArrays, CaseInfo]:
    """The same case with all modalities, in their order."""
    of = {modality: number for number, modality in enumerate(info.modalities)}
    image_MDHW = np.zeros((len(modalities), *info.shape), arrays.image_MDHW.dtype)
    for place, modality in enumerate(modalities):
        if modality in of:
            image_MDHW[place] = arrays.image_MDHW[of[modality]]

    def spread(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values[of[modality]] if modality in of else 0.0 for modality in modalities)

    missing = ", ".join(modality for modality in modalities if modality not in of)
    complete = replace(
        info,
        modalities=tuple(modalities),
        mean=spread(info.mean),
        std=spread(info.std),
        minimum=spread(info.minimum),
        maximum=spread(info.maximum),
        percentiles={percentage: spread(values) for percentage, values in info.percentiles.items()},
        notes=(*info.notes, f"scans that are missing, taken as 0: {missing}"),
    )
    return arrays._replace(image_MDHW=image_MDHW), complete
