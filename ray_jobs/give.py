"""Give a trained network to another program: `python ray_jobs/give.py onnx --checkpoint C --output DIR`."""

import sys
from collections.abc import Sequence

from ray_jobs.checkpoints.lookup import find_checkpoint
from ray_jobs.exchange.description import describe_network
from ray_jobs.exchange.give_config import GiveConfig
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from storage.store.objects import Objects, refuse_unwritable


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = read_flags(GiveConfig, arguments, description=__doc__)
    checkpoint = find_checkpoint(config.checkpoint)
    refuse_unwritable(config.output)
    describe_network(checkpoint)  # refuses what cannot be given
    # PyTorch takes seconds to import: not before the command line stands.
    from ray_jobs.exchange.giving import give

    folder = Objects(config.output, create=True)
    for name in give(config.kind, checkpoint, folder):
        print(f"{folder.uri}/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
