"""Whether this process was started for a cluster, and its file. Imports nothing of Ray, which takes seconds."""

import os
from pathlib import Path


def on_a_cluster() -> bool:
    """Return whether Ray told this process which cluster it belongs to, as it does for a submitted job."""
    return bool(os.environ.get("RAY_ADDRESS"))


def cluster_file() -> Path:
    """Where a head that `ray up` has made has the cluster file, as JSON; it is not there on other machines."""
    return Path.home() / "ray_bootstrap_config.yaml"
