"""Whether this process was started for a cluster. Imports nothing of Ray, which takes seconds."""

import os


def on_a_cluster() -> bool:
    """Return whether Ray told this process which cluster it belongs to, as it does for a submitted job."""
    return bool(os.environ.get("RAY_ADDRESS"))
