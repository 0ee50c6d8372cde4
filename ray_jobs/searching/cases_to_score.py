"""Which cases of a store a checkpoint is scored on: the part that its run dealt out, or all of them. No PyTorch."""

from typing import Literal, get_args

from ray_jobs.checkpoints.lookup import find_checkpoint, read_config, read_store_digest, refuse_other_scans
from ray_jobs.checkpoints.trained_on import OWN_TASK_ONLY, refuse_other_task
from storage import InputError, open_store, split_cohort

Split = Literal["train", "validation", "test", "all"]


def cases_of(store_uri: str, split: Split, checkpoint: str) -> tuple[str, ...]:
    """Return the labelled cases of the split that the run of the checkpoint made.

    Raises InputError for none, for a store of other scans than the network's, and for a part of a store that is not the
    run's: dealt out anew, it may hold cases that the run trained on.
    """
    assert split in get_args(Split)
    found, store = find_checkpoint(checkpoint), open_store(store_uri)
    refuse_other_task(found, store.task, f"the store {store.uri}", OWN_TASK_ONLY)
    remedy = "give a store that convert.py made of those scans (--modalities, in that order)"
    refuse_other_scans(found, store.settings.modalities, f"the store {store.uri}", remedy)
    if split == "all":
        case_ids = tuple(info.case_id for info in store.infos() if info.labelled)
    else:
        trained_on = read_store_digest(found)
        if store.digest != trained_on:
            raise InputError(
                f"--split {split} wanted the store that {found.uri} was trained on (digest {trained_on[:8]}), "
                f"{store.uri} is another or has changed since ({store.digest[:8]}), so that its parts may be others: "
                "give that store, or --split all"
            )
        splits = split_cohort(store, read_config(found).splits)
        case_ids = {"train": splits.train, "validation": splits.validation, "test": splits.test}[split]
    if not case_ids:
        raise InputError(f"--split {split}: that part has no case in {store_uri}")
    return case_ids
