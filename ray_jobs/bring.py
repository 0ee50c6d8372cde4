"""Bring another program's network here: `python ray_jobs/bring.py nnunet DIR --output C`, C being the checkpoint."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ray_jobs.checkpoints.checkpoint import RECORD
from ray_jobs.exchange.bring_config import BringConfig
from ray_jobs.exchange.nnunet_plans import PLANS, read_json
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from ray_jobs.settings.label_choice import told_task
from storage import InputError
from storage.store.objects import Objects, refuse_unwritable


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = read_flags(BringConfig, arguments, description=__doc__)
    folder, task = Path(config.folder).expanduser(), told_task(config.task)
    assert task is not None
    read_json(folder, PLANS)
    fold = config.fold or _only_fold(folder)
    refuse_unwritable(config.output)
    if (Path(config.output).expanduser() / RECORD).exists():  # of a bucket it is asked below
        raise InputError(f"wanted a new folder, {config.output} has a checkpoint; name another --output")
    # PyTorch takes seconds to import: not before the command line stands.
    from ray_jobs.exchange.nnunet_results import bring

    files = bring(folder, fold, config.file, task)
    output = Objects(config.output, create=True)
    if output.get(RECORD) is not None:
        raise InputError(f"wanted a new folder, {output.uri} has a checkpoint; name another --output")
    for name, content in files.items():
        output.put(name, content)
    print(f"checkpoint {output.uri}")
    return 0


def _only_fold(folder: Path) -> str:
    folds = sorted(path.name.removeprefix("fold_") for path in folder.glob("fold_*") if path.is_dir())
    if len(folds) != 1:
        raise InputError(f"wanted one fold in {folder}, found {', '.join(folds) or 'none'}; say which with --fold")
    return folds[0]


if __name__ == "__main__":
    sys.exit(run_command(main))
