"""Segment cases with trained networks: `python ray_jobs/predict.py --checkpoint C --input DIR_OR_STORE --output DIR`.

Exit status: 0 when every case is segmented, 3 when some were refused (named here and in metrics.json), 2 when nothing
could be done with what was given. Run again, it does only what is missing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ray_jobs.checkpoints.lookup import find_checkpoints
from ray_jobs.predicting.folder import CaseFolder, refuse_overlap
from ray_jobs.predicting.predict_config import (
    PredictConfig,
    choose_decision,
    choose_modalities,
    choose_rules,
    choose_task,
    find_input,
)
from ray_jobs.settings.command import parse
from ray_jobs.settings.console import open_console
from ray_jobs.settings.exit_status import run_command
from storage.store.objects import refuse_unwritable

# What the first screen of --help leaves out: how unusual names and labels are told, and where it runs.
SELDOM = ("--modalities", "--names", "--task", "--label-map", "--trust-grid", "--write-task", "--workers", "--gpu")


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = parse(arguments, PredictConfig, seldom=SELDOM)
    checkpoints = [checkpoint for uri in config.checkpoint for checkpoint in find_checkpoints(uri)]
    modalities = choose_modalities(config, checkpoints)
    task = choose_task(checkpoints)
    decision = choose_decision(config, checkpoints, task)
    rules = choose_rules(config.rules, task)
    folder = CaseFolder(config.output, record="{case_id}_seg.json", made="predictions")
    if "://" not in config.input:
        source, _ = find_input(config.input)
        if folder.folder is not None:
            refuse_overlap(folder.folder.resolve(), Path(source))
    refuse_unwritable(folder.uri)
    # PyTorch, DALI and Ray take seconds to import: not before the command line stands.
    from ray_jobs.on_ray.ray_start import ray_running
    from ray_jobs.predicting.job import predict

    with ray_running():
        return predict(config, checkpoints, task, modalities, decision, rules, folder, open_console())


if __name__ == "__main__":
    sys.exit(run_command(main))
