"""A checkpoint found, and what it says of its training, without loading its weights: no PyTorch."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray_jobs.checkpoints.checkpoint import RECORD, Checkpoint
from ray_jobs.checkpoints.checkpoint_store import BEST, CheckpointStore
from ray_jobs.checkpoints.folds import fold_name, folds_of
from ray_jobs.checkpoints.run_folder import CONFIG, SUMMARY, decode_json
from ray_jobs.checkpoints.trained_on import decode_task
from ray_jobs.settings.config import TrainConfig, decode_config
from storage import InputError
from storage.store.objects import Objects


def find_checkpoints(uri: str) -> list[Checkpoint]:
    """Return the checkpoint at `uri`, or of the folder of a cross-validation the best one of each of its folds.

    Raises InputError where there is none, and where a fold is not finished.
    """
    folder = _open_folder(uri)
    folds = _count_folds(folder)
    if folds is None:
        return [find_checkpoint(uri)]
    names = [fold_name(fold) for fold in range(folds)]
    found = folder.get_many([f"{name}/{SUMMARY}" for name in names])
    if missing := [name for name, summary in zip(names, found, strict=True) if summary is None]:
        raise InputError(
            f"wanted the {folds} folds of the cross-validation {folder.uri}, found {', '.join(missing)} not finished: "
            "the command that trains it goes on with them; or give the folders of those to average"
        )
    return [find_checkpoint(f"{folder.uri}/{name}") for name in names]


def find_checkpoint(uri: str) -> Checkpoint:
    """Return the checkpoint at `uri`; of a run's or a search's folder, its best one.

    Raises InputError where there is none, or one for each fold of a cross-validation.
    """
    folder = _open_folder(uri)
    if (folds := _count_folds(folder)) is not None:
        raise InputError(
            f"wanted one checkpoint, {folder.uri} is a cross-validation of {folds}: give the folder of a fold, such as "
            f"{folder.uri}/{fold_name(0)}"
        )
    for name in ("", BEST):
        if folder.get(f"{name}/{RECORD}".strip("/")) is not None:
            return Checkpoint(folder, name)
    best = CheckpointStore(uri).best() if folder.folders("") else None
    if best is None:
        raise InputError(
            f"wanted a checkpoint or a run with a validated one at {folder.uri}, found none: "
            "give the folder that train.py names after `checkpoint`"
        )
    return CheckpointStore(uri).open(best)


def _open_folder(uri: str) -> Objects:
    if "://" not in uri and not Path(uri).expanduser().is_dir():
        near = _alike(Path(uri).expanduser())
        raise InputError(
            f"wanted a checkpoint at {uri}, found no folder: give one that train.py or tune.py names"
            + (f", perhaps {near}" if near else "")
        )
    return Objects(uri)


def _alike(missing: Path) -> Path | None:
    """Return the folder beside it whose name goes on where the missing one's ends, the last of several, or is alike."""
    beside = sorted(path.name for path in missing.parent.glob("*") if path.is_dir())
    longer = [name for name in beside if missing.name and name.startswith(missing.name)]
    names = longer[-1:] or difflib.get_close_matches(missing.name, beside, 1)
    return missing.parent / names[0] if names else None


def _count_folds(folder: Objects) -> int | None:
    config = folder.get(CONFIG)
    return None if config is None else folds_of(decode_json(config, f"{folder.uri}/{CONFIG}"))


def read_config(checkpoint: Checkpoint) -> TrainConfig:
    """Return the configuration of the run that wrote the checkpoint."""
    values: dict[str, Any] = checkpoint.read_json(CONFIG)
    decode_task(values, checkpoint.uri)
    return decode_config(values)


def other_version(checkpoint: Checkpoint) -> str | None:
    """Say where an imported network is installed in another version than the checkpoint was made with."""
    made_with = checkpoint.read_json(CONFIG).get("made_with", {}).get("network")
    network = read_config(checkpoint).model
    if network.network is None or made_with == network.distribution:
        return None
    here = network.distribution or "a module that belongs to nothing that is installed"
    before = made_with or "a module of no known version"
    return f"{checkpoint.uri}: {network.network} was trained with {before}, and here it is {here}"


def read_modalities(checkpoint: Checkpoint) -> tuple[str, ...] | None:
    """Return the scans that the network was trained on, in its order; None where an older version wrote none down."""
    modalities: list[str] | None = checkpoint.read_json(CONFIG).get("modalities")
    return None if modalities is None else tuple(modalities)


def refuse_other_scans(checkpoint: Checkpoint, given: Sequence[str], source: str, remedy: str) -> None:
    """Raise InputError where the scans that `source` gives are not, in their order, those of the network's training.

    Another order is no error to the network: it would predict, and be wrong. Of an older checkpoint, which does not
    say what it was trained on, only the number is known.
    """
    wanted, trained_on = read_config(checkpoint).model.modalities, read_modalities(checkpoint)
    if trained_on is None:
        if wanted != len(given):
            raise InputError(
                f"{checkpoint.uri} was trained on {wanted} scans (it does not say which), {source} gives {len(given)}, "
                f"{', '.join(given)}: {remedy}"
            )
    elif trained_on != tuple(given):
        raise InputError(
            f"{checkpoint.uri} was trained on {', '.join(trained_on)}, in that order, {source} gives "
            f"{', '.join(given)}: {remedy}"
        )


def read_store_digest(checkpoint: Checkpoint) -> str:
    """Return the digest of the store that the checkpoint's run trained on, as it was then."""
    return str(checkpoint.read_json(CONFIG)["store_digest"])
