"""Submit again what was running when the last head was lost: aws.yaml runs this on each new head.

A job is kept among the runs (BRATS_RUNS), where those are in a bucket, until it ends or is stopped. It goes on under
its old id, with the code and the BRATS_ variables that it had.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.on_ray.unfinished import find_unfinished, submit, unpack_code
from ray_jobs.settings.config import environment_default
from ray_jobs.settings.console import open_console
from ray_jobs.settings.exit_status import run_command
from ray_jobs.settings.flags import read_flags


@dataclass(frozen=True, kw_only=True)
class ResubmitConfig:
    """Submit again what was running when the last head was lost."""

    runs: str | None = None
    """The s3:// URL of the runs. Default: BRATS_RUNS."""
    api: str = "http://127.0.0.1:8265"
    """The head's job API."""
    code: Path = Path.home() / "unfinished"
    """Where the jobs' code is put."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    config = read_flags(ResubmitConfig, arguments, description=__doc__)
    runs, console = config.runs or environment_default("RUNS") or "", open_console()
    jobs = find_unfinished(runs) if "://" in runs else []
    for job in jobs:
        folder = config.code / job.id
        unpack_code(job, runs, folder)
        runtime = {"working_dir": str(folder), "env_vars": job.environment}
        submit(config.api, entrypoint=shlex.join(job.command), submission_id=job.id, runtime_env=runtime)
        console.print(f"submitted again: {job.id}: {shlex.join(job.command)}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
