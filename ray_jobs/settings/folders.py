"""Where runs, converted data and decoded cases go unless told otherwise."""

import hashlib
import os
from pathlib import Path

from storage.archives.kinds import place_of


def home_folder() -> Path:
    """Return where runs and converted data go unless told: here, or the user's own folder inside a Ray job.

    A job's working directory may be an uploaded copy that is thrown away with the job.
    """
    return Path.home() / "brats-stream" if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else Path.cwd()


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
