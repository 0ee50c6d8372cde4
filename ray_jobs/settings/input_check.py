"""Whether what the user named can be used at all: said before Ray starts and anything is written."""

import dataclasses

from models import number_labels
from ray_jobs.settings.config import TrainConfig
from storage import CohortStore, InputError, find_cases, list_source, open_store
from storage.archives.kinds import SourceKind, find_kind


def check_input(config: TrainConfig) -> None:
    """Raise InputError for a store or source that cannot be used, before Ray starts and anything is written."""
    if config.store is not None:
        fit_to_store(config, open_store(config.store))
        return
    # A compressed archive is not read to its end for this: after the conversion too few subjects are said, too.
    if config.source is not None and find_kind(config.source) is not SourceKind.STREAM:
        search = find_cases(list_source(config.source))
        subjects = {case.subject for case in search.cases if case.label is not None}
        parts = config.splits.parts
        if len(subjects) < len(parts):
            found = f"found {len(subjects)} in {len(search.cases)} complete cases"
            reason = f"; the first of {len(search.refused)} refused: {search.refused[0]}" if search.refused else ""
            raise InputError(
                f"wanted at least {len(parts)} labelled subjects below {config.source}, for {', '.join(parts)}; "
                f"{found}: add cases, or download the missing scans{reason}"
            )


def fit_to_store(config: TrainConfig, store: CohortStore) -> TrainConfig:
    """Return `config` with a network for the scans and regions of the store.

    Raises InputError where thresholds are given, and not one for each region.
    """
    regions = store.task.region_names
    if config.thresholds is not None and len(config.thresholds) != len(regions):
        raise InputError(
            f"wanted --thresholds for {', '.join(regions)}, which are the regions of {store.uri}, "
            f"got {len(config.thresholds)} numbers"
        )
    labels = tuple(region.labels for region in store.task.regions)
    network = dataclasses.replace(
        config.model,
        modalities=len(store.settings.modalities),
        regions=len(regions),
        region_labels=number_labels(labels) if config.model.head == "labels" else None,
    )
    return dataclasses.replace(config, model=network)
