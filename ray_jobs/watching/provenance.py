"""Where a figure comes from: which code."""

import subprocess
from pathlib import Path


def git_commit() -> str | None:
    """Return the commit of this code, with `+` where files differ from it; None outside a repository."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"], cwd=here, capture_output=True
        )
    except OSError:  # no git on this machine
        return None
    return found.stdout.decode().strip() or None
