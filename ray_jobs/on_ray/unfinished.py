"""Jobs that a lost head takes with it: what it takes to submit one again lies beside its run until it ends.

That is the command, the project's BRATS_ variables (no others: they may be secrets) and the code that ran.
"""

import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import InputError
from storage.store.objects import Objects

FOLDER = ".unfinished"  # among the runs: no run's name begins with a point
JOB, CODE = "job.json", "code.zip"
PROJECT = Path(__file__).parents[2]
SECONDS_FOR_A_HEAD = 120.0  # a fresh one answers before it takes jobs


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A job that has not come to its end, or whose end nobody saw."""

    id: str
    command: list[str]
    environment: dict[str, str]


@contextmanager
def kept_for_another_head(runs: str, *, more: Sequence[str] = ()) -> Iterator[Callable[[], None]]:
    """Keep this process, where it is a submitted job, for the head that comes after this one is lost.

    However the body ends, it is no longer kept then; what is given forgets it sooner. `more` is what lets the command
    go on.
    """
    name = submission_id()
    if name is None or "://" not in runs:  # a disk of the head's goes with it
        yield lambda: None
        return
    place = Objects(f"{runs}/{FOLDER}")
    environment = {key: value for key, value in os.environ.items() if key.startswith("BRATS_")}
    job = {"command": own_command(more), "environment": environment}
    place.put(f"{name}/{CODE}", pack_code())
    place.put(f"{name}/{JOB}", json.dumps(job).encode())  # last: it is whole
    try:
        yield lambda: place.delete_folder(name)
    finally:
        with suppress(InputError):  # the body's own end is what counts
            place.delete_folder(name)


def submission_id() -> str | None:
    """The id under which this process was submitted; None where it was not."""
    about = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    name: str | None = about.get("metadata", {}).get("job_submission_id")
    return name


def own_command(more: Sequence[str]) -> list[str]:
    """How this process was started, seen from the project's folder."""
    script = Path(sys.argv[0]).resolve()
    added = [word for word in more if word not in sys.argv]
    return ["python", str(script.relative_to(PROJECT)), *sys.argv[1:], *added]


def pack_code() -> bytes:
    """The project's packages as they are here, a megabyte or two."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in sorted(init.parent for init in PROJECT.glob("*/__init__.py")):
            for file in sorted(package.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive.write(file, file.relative_to(PROJECT))
    return packed.getvalue()


def find_unfinished(runs: str) -> list[Unfinished]:
    """The jobs among `runs` that nobody saw end."""
    place = Objects(f"{runs}/{FOLDER}")
    keys = place.keys()
    names = [key.rpartition("/")[0] for key in keys if key.endswith(f"/{JOB}")]
    return [Unfinished(id=name, **json.loads(place.get(f"{name}/{JOB}") or b"{}")) for name in names]


def unpack_code(job: Unfinished, runs: str, folder: Path) -> None:
    """Put the code that it ran into `folder`."""
    code = Objects(f"{runs}/{FOLDER}").get(f"{job.id}/{CODE}")
    with zipfile.ZipFile(io.BytesIO(code or b"")) as archive:
        archive.extractall(folder)


def submit(api: str, **job: Any) -> None:
    """Submit it as soon as jobs are taken. Raises what Ray does where they are not within two minutes."""
    from ray.job_submission import JobSubmissionClient  # seconds, which a head without unfinished jobs does not wait

    until = time.monotonic() + SECONDS_FOR_A_HEAD
    while True:
        try:
            JobSubmissionClient(api).submit_job(**job)
        except (RuntimeError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(2)
        else:
            return
