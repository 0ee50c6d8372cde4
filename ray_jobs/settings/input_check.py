"""Whether what the user named can be used at all: said before Ray starts and anything is written."""

from collections.abc import Sequence
from pathlib import Path

from ray_jobs.settings.config import TrainConfig
from storage import MODALITIES, InputError, find_cases, open_store
from storage.splits.splits import PARTS


def check_input(config: TrainConfig) -> None:
    """Raise InputError for a store or source that cannot be used, before Ray starts and anything is written."""
    if config.store is not None:
        store = open_store(config.store)
        check_scans(config, store.settings.modalities, store.uri)
        return
    check_scans(config, MODALITIES, config.source or "the synthetic cohort")  # what a source is converted with here
    if config.source is not None:
        search = find_cases(Path(config.source))
        subjects = {case.subject for case in search.cases if case.label is not None}
        if len(subjects) < len(PARTS):
            found = f"found {len(subjects)} in {len(search.cases)} complete cases"
            reason = f"; the first of {len(search.refused)} refused: {search.refused[0]}" if search.refused else ""
            raise InputError(
                f"wanted at least {len(PARTS)} labelled subjects below {config.source}, for {', '.join(PARTS)}; "
                f"{found}: add cases, or download the missing scans{reason}"
            )


def check_scans(config: TrainConfig, modalities: Sequence[str], place: str) -> None:
    """Raise InputError where the network does not take as many scans as the cases have."""
    if config.model.modalities != len(modalities):
        raise InputError(
            f"wanted a network for the {len(modalities)} scans of {place} ({', '.join(modalities)}), got "
            f"--model.modalities {config.model.modalities}: give --model.modalities {len(modalities)}, or a store that "
            "convert.py --modalities made of other scans"
        )
