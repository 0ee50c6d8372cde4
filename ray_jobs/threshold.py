"""Find the best thresholds of a checkpoint in one pass over the cases: `python ray_jobs/threshold.py --help`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from models import Objective
from ray_jobs.checkpoints.lookup import find_checkpoint, read_config
from ray_jobs.searching.cases_to_score import Split, cases_of
from ray_jobs.settings.config import environment_default
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from ray_jobs.settings.groups import refuse_below_one
from storage import InputError


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """The threshold with the best score for each region, exact on a grid of 0.001, from one pass over the cases."""

    checkpoint: str
    """Folder or s3:// URL of a checkpoint, or of a run: then its best one."""
    store: str | None = None
    """Zarr store made by convert.py, a path or an s3:// URL. Default: BRATS_STORE."""
    split: Split = "validation"
    """The cases to score, as the checkpoint's run dealt them out: of another store only all."""
    objective: Objective | None = None
    """The plain score (docs/scores.md) to be maximised. Default: what the checkpoint's run maximised."""
    output: str | None = None
    """Folder or s3:// URL for thresholds.json and thresholds.png. Default: scored-SPLIT inside the checkpoint."""
    workers: int | None = None
    """Cases predicted at once. Default: one per GPU; without GPUs one per CPU, as long as each has 4 GB of memory."""

    def __post_init__(self) -> None:
        refuse_below_one(self, "workers")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status: 3 where some cases were left out."""
    config = read_flags(ThresholdConfig, arguments, description=__doc__)
    store = config.store or environment_default("STORE")
    if store is None:
        raise InputError("wanted --store PATH_OR_URL, got none, and BRATS_STORE is not set")
    found = find_checkpoint(config.checkpoint)
    checkpoint, objective = found.uri, config.objective or read_config(found).objective
    case_ids = cases_of(store, config.split, checkpoint)
    # PyTorch, DALI and Ray take seconds to import: not before the command line stands.
    from ray_jobs.searching.threshold_scan import find_thresholds

    return find_thresholds(
        checkpoint,
        store,
        config.split,
        case_ids,
        output=config.output,
        workers=config.workers,
        objective=objective,
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
