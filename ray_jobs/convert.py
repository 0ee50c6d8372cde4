"""Convert a BraTS download into a store: `python ray_jobs/convert.py --source PATH --store PATH_OR_URL`.

Exit status: 0 when every case is stored, 3 when some were refused or found damaged (report.json in the store lists
them with reasons), 2 when nothing could be done with what was given.
"""

import sys
from collections.abc import Sequence

from ray_jobs.settings.convert_config import ConvertConfig
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags
from storage import InputError
from storage.archives.kinds import find_kind
from storage.scans.dataset_json import check_dataset_folder
from storage.store.objects import refuse_unwritable


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = read_flags(ConvertConfig, arguments, description=__doc__)
    if config.source is None and not config.verify and config.mirror is None and config.to_nnunet is None:
        raise InputError(
            "wanted --source PATH (or --verify, --to-nnunet or --mirror with a store that is there), got none"
        )
    if config.to_nnunet is not None:
        check_dataset_folder(config.to_nnunet)
    if config.source is not None:
        find_kind(config.source)
        refuse_unwritable(config.store)
    for place in filter(None, (config.to_nnunet, config.mirror)):
        refuse_unwritable(place)
    # PyTorch, DALI and Ray take seconds to import: not before the command line stands.
    from ray_jobs.on_ray.conversion_job import convert

    return convert(config)


if __name__ == "__main__":
    sys.exit(run_command(main))
