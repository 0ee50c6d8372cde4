"""Whether what the user named can be used at all: said before Ray starts and anything is written."""

import dataclasses

from models import number_labels
from ray_jobs.settings.config import TrainConfig
from ray_jobs.settings.folders import refuse_odd_name, refuse_unwritable_run
from storage import CohortStore, InputError, find_cases, list_source, open_store
from storage.archives.kinds import SourceKind, find_kind


def check_input(config: TrainConfig) -> None:
    """Raise InputError for a name, a folder, a store or a source that cannot be used, before Ray starts and anything is
    written.
    """
    check_place(config)
    if config.store is not None:
        fit_to_store(config, open_store(config.store))
        return
    refuse_unfit(config)  # for the scans and regions of most cohorts; fit_to_store asks again for those of the store
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


def check_place(config: TrainConfig) -> None:
    """Raise InputError where a run or a search cannot be kept: for its name, or as its folders cannot be written to."""
    if config.name is not None:
        refuse_odd_name(config.name)
    refuse_unwritable_run(config.runs, converts=config.store is None)


def fit_to_store(config: TrainConfig, store: CohortStore) -> TrainConfig:
    """Return `config` with a network for the scans and regions of the store.

    Raises InputError where thresholds are given, and not one for each region, and where an imported network or loss
    does not fit.
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
    fitted = dataclasses.replace(config, model=network)
    refuse_unfit(fitted)
    return fitted


def refuse_unfit(config: TrainConfig) -> None:
    """Raise InputError where an imported network or loss does not take what the run gives it, or answers otherwise."""
    network, sides = config.model, config.sampling.patch_shape
    if network.network is None and config.loss.function is None:
        return
    from models import check_loss, check_network  # with PyTorch, which takes seconds

    flag = "--model.network"
    try:
        if network.network is not None:
            check_network(network, sides)
            if config.validation.whole:
                flag = "--validation.whole predicts whole cases at once: --model.network"
                check_network(network, tuple(side + network.side_multiple for side in network.round_up_sides(sides)))
        if config.loss.function is not None:
            flag = "--loss.function"
            check_loss(config.loss, regions=network.regions, dimensions=network.dimensions)
    except ValueError as error:
        raise InputError(f"{flag}: {error}") from error
