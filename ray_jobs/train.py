"""Train a U-Net on BraTS cases: `python ray_jobs/train.py --help`."""

import sys
from collections.abc import Sequence

from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.on_ray.planned_machines import check_limit
from ray_jobs.settings.command import parse_training
from ray_jobs.settings.console import open_console
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.input_check import check_input


def main(arguments: Sequence[str]) -> int:
    """Run the job the command line describes; return the exit status."""
    config = parse_training(arguments)
    check_input(config)
    if config.init_from is not None:
        find_checkpoint(config.init_from)
    check_limit(config)
    if config.dry_run:
        from ray_jobs.training.dry_run import describe_run

        for line in describe_run(config):
            open_console().print(line, highlight=False, soft_wrap=True)
        return 0
    # PyTorch, DALI and Ray take seconds to import: not before the command line stands.
    from ray_jobs.training.job import train

    return train(config)


if __name__ == "__main__":
    sys.exit(run_command(main))
