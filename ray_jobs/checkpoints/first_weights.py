"""The checkpoint whose weights a run begins with, where it is told one. Imports no PyTorch."""

import dataclasses
from typing import Any

from ray_jobs.checkpoints.checkpoint import Checkpoint
from ray_jobs.checkpoints.lookup import find_checkpoint, read_config, read_store_digest, refuse_other_scans
from ray_jobs.checkpoints.run_folder import describe_changes
from ray_jobs.checkpoints.trained_on import refuse_other_task
from ray_jobs.settings.config import TrainConfig, run_identity
from storage import CohortStore, InputError

REMEDY = "--init-from wants a network of the same scans, task and settings"


def find_first_weights(config: TrainConfig, store: CohortStore) -> Checkpoint | None:
    """Return the checkpoint of --init-from, None where none is given; raises InputError where it does not fit."""
    if config.init_from is None:
        return None
    checkpoint = find_checkpoint(config.init_from)
    refuse_other_task(checkpoint, store.task, store.uri, REMEDY)
    refuse_other_scans(checkpoint, store.settings.modalities, store.uri, REMEDY)
    if changes := describe_changes(_network(read_config(checkpoint)), _network(config)):
        raise InputError(f"{checkpoint.uri} has weights of another network than this run's ({changes}): {REMEDY}")
    return checkpoint


def notice_of_other_cases(checkpoint: Checkpoint, config: TrainConfig, store: CohortStore) -> str | None:
    """Say where the weights' training may have seen cases that score here: the cases were dealt out otherwise."""
    own, other = (run_identity(each, "")["splits"] for each in (config, read_config(checkpoint)))
    if own == other and read_store_digest(checkpoint) == store.digest:
        return None
    return (
        f"the cases of {checkpoint.uri} were others, or dealt out otherwise: it may have been trained on some that "
        "score here, and flatters then"
    )


def _network(config: TrainConfig) -> dict[str, Any]:
    return {"model": dataclasses.asdict(config.model), "normalisation": config.normalisation}
