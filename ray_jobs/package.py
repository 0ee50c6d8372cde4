"""Make a challenge's container of trained networks: `python ray_jobs/package.py --checkpoint C --tag NAME`.

Writes a folder for `docker build`, and says how to build and run it; needs no docker itself. Exit status 2 when nothing
could be made of what was given.
"""

import sys
from collections.abc import Sequence

from ray_jobs.checkpoints.lookup import find_checkpoints
from ray_jobs.predicting.build_folder import folder_of, write_package
from ray_jobs.predicting.container_config import PackageConfig
from ray_jobs.predicting.predict_config import PredictConfig, choose_decision, choose_modalities, choose_task
from ray_jobs.settings.command import parse
from ray_jobs.settings.console import open_console
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.label_choice import refuse_incomplete, told_task
from storage.store.objects import refuse_unwritable


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = parse(arguments, PackageConfig, seldom=())
    checkpoints = [checkpoint for uri in config.checkpoint for checkpoint in find_checkpoints(uri)]
    # What a prediction would refuse is refused here, and not by the organisers' machine.
    asked = PredictConfig(checkpoint=config.checkpoint, input="/input", output="/output")
    task = choose_task(checkpoints)
    choose_modalities(asked, checkpoints)
    choose_decision(asked, checkpoints, task)
    written = told_task(config.write_task, flag="--write-task")
    if written is not None:
        refuse_incomplete(written.convention, task)
    folder = folder_of(config)
    refuse_unwritable(folder)
    console = open_console()
    commands = write_package(config, checkpoints, folder)
    console.print(f"wrote {folder}, {len(checkpoints)} networks; then", soft_wrap=True, highlight=False)
    for command in commands:
        console.print(command, soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
