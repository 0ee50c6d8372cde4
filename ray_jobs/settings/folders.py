"""Where runs, converted data and decoded cases go unless told otherwise."""

import hashlib
import os
import re
from pathlib import Path

from storage import InputError
from storage.archives.kinds import place_of
from storage.store.objects import refuse_unwritable


def home_folder() -> Path:
    """Return where runs and converted data go unless told: here, or the user's own folder inside a Ray job.

    A job's working directory may be an uploaded copy that is thrown away with the job.
    """
    return Path.home() / "brats-stream" if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else Path.cwd()


def refuse_odd_name(name: str) -> None:
    """Raise InputError where a run or search cannot be called so: it is a folder's name, and a tag of Ray's metrics."""
    if not re.fullmatch(r"[!-,0-~][ -.0-~]{0,99}", name):
        raise InputError(
            "--name must be a plain word without slashes, of at most 100 ASCII characters and none of . and - the "
            f"first, got {name!r}"
        )


def refuse_unwritable_run(runs: str, *, converts: bool) -> None:
    """Raise InputError where a run cannot be kept below `runs`, or this machine's folders cannot hold what it reads."""
    try:
        refuse_unwritable(runs)
    except InputError as error:
        raise InputError(f"--runs must be a folder or an s3:// URL where files can be made: {error}") from error
    if converts:
        refuse_unwritable(data_folder())
    if "RAY_ADDRESS" not in os.environ:  # elsewhere it is the workers' folder, on machines of their own
        try:
            refuse_unwritable(cache_folder())
        except InputError as error:
            raise InputError(f"decoded cases have no place: {error} with XDG_CACHE_HOME") from error


def store_folder(source: str | Path) -> Path:
    """Return where the store of `source` is kept: the same place every time for the same folder or archive."""
    place = place_of(source)
    name = place.rpartition("/")[2]
    return data_folder() / f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}.zarr"


def data_folder() -> Path:
    """Return the folder for synthetic cohorts and converted stores."""
    return home_folder() / "data"


def cache_folder() -> Path:
    """Return where this machine keeps decoded cases: a cloud machine's NVMe disk, else the user's cache folder."""
    nvme = Path("/opt/dlami/nvme")
    if nvme.is_dir() and os.access(nvme, os.W_OK):
        return nvme / "brats-stream-cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brats-stream"
