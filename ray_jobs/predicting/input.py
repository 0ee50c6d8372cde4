"""What is to be predicted: the cases of a store, or of a folder of NIfTI files as they are, and how one is read."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ray_jobs.on_ray.ray_start import refuse_hidden_folder, refuse_hidden_source
from ray_jobs.on_ray.spread import spread
from ray_jobs.predicting.predict_config import find_folder
from storage import Case, CohortStore, HeldCase, InputError, Refusal, find_cases, open_store
from storage.labels.conventions import BRATS_124, LabelConvention
from storage.scans.label_detection import read_label_values
from storage.scans.listing import ScanFile
from storage.store.cohort_conversion import choose_convention
from storage.store.held_case import hold_source, hold_stored
from storage.store.index import ROOT_KEY
from storage.store.objects import Objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreInput:
    """Cases of the store at `uri`. Small enough to be sent to every worker."""

    uri: str
    convention: LabelConvention

    def read(self, case_id: str) -> HeldCase:
        """The case; raises InputError naming what is damaged."""
        return hold_stored(_open_once(self.uri), case_id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderInput:
    """Cases as files, which the worker that predicts one reads and checks."""

    cases: Mapping[str, Case]
    modalities: tuple[str, ...]
    convention: LabelConvention

    def read(self, case_id: str) -> HeldCase:
        """The case; raises InputError with file, finding and remedy."""
        return hold_source(self.cases[case_id], self.modalities, self.convention)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort:
    """Complete cases with what tells whether one has changed, those refused by their names alone, and how to read."""

    uri: str
    sources: Mapping[str, Mapping[str, Any]]
    source: StoreInput | FolderInput
    refused: tuple[Refusal, ...] = ()


def open_cohort(
    place: str,
    *,
    modalities: Sequence[str],
    names: Mapping[str, str],
    told: LabelConvention | None,
    instead: LabelConvention | None,
    workers: int,
) -> Cohort:
    """Look at the store or folder at `place`; Ray must run.

    `told` is what the labels of a folder mean. Where no case has a label, `instead` will do as well, then what the
    names say, then BraTS' first convention. Raises InputError where nothing can be predicted, where the meaning of
    labels cannot be told, and for a place some node does not see.
    """
    if "://" in place:
        return _open_store(place, modalities)
    folder = find_folder(place)
    if Objects(place).get(ROOT_KEY) is not None:
        return _open_store(place, modalities)
    refuse_hidden_source(folder)
    search = find_cases(folder, modalities=modalities, names=names or None)
    if not search.cases:
        raise InputError(
            f"wanted complete cases below {folder}, found none; the first of {len(search.refused)} refusals: "
            f"{search.refused[0]}"
        )
    labelled = [case for case in search.cases if case.label is not None]
    if told is None and not labelled:
        told = instead
    values: dict[str, tuple[int, ...] | None] = {}
    if told is None and search.convention is None:
        outcomes = spread(lambda: read_label_values, labelled, workers=workers, use_gpu=False)
        values = {outcome.item.case_id: outcome.result for outcome in outcomes}
    usual = None if labelled else BRATS_124
    convention = choose_convention(search.cases, values, told=told, stated=search.convention, stored=usual)
    cases = {case.case_id: case for case in search.cases}
    return Cohort(
        uri=str(folder),
        sources={case_id: _describe_files(case) for case_id, case in cases.items()},
        source=FolderInput(cases=cases, modalities=tuple(modalities), convention=convention),
        refused=search.refused,
    )


def _open_store(place: str, modalities: Sequence[str]) -> Cohort:
    store = open_store(place)
    if store.settings.modalities != tuple(modalities):
        raise InputError(
            f"wanted the network's scans {', '.join(modalities)}, in that order, {store.uri} has "
            f"{', '.join(store.settings.modalities)}: give the NIfTI folder, or a store that convert.py --modalities "
            "made of those; for an older checkpoint, which does not say, name what it was trained on with --modalities"
        )
    if not store.case_ids:
        raise InputError(f"wanted cases to predict in {store.uri}, found none; convert some into it")
    refuse_hidden_folder(store.uri, "store")
    return Cohort(
        uri=store.uri,
        sources={info.case_id: {"digest": info.digest} for info in store.infos()},
        source=StoreInput(uri=store.uri, convention=store.settings.convention),
    )


def _describe_files(case: Case) -> dict[str, Any]:
    paths = {**case.files, **({"label": case.label} if case.label is not None else {})}
    return {role: _describe_file(path) for role, path in paths.items()}


def _describe_file(path: ScanFile) -> list[Any]:
    try:
        state = path.stat()
    except OSError as error:
        return [path.name, error.strerror]  # reading it will say more
    return [path.name, state.st_size, state.st_mtime_ns]


@lru_cache(maxsize=1)
def _open_once(uri: str) -> CohortStore:
    return open_store(uri)
