"""Where a figure comes from: which code."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MADE = ("benchmarks/records", "BENCHMARKS.md")  # by a benchmark, which would mark the commit of the next one


def git_commit() -> str | None:
    """Return the commit of this code, with `+` where its files differ from it; None outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).stdout.decode().strip()
        code = (".", *(f":(exclude){path}" for path in MADE))
        differ = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], cwd=ROOT, capture_output=True)
    except OSError:  # no git on this machine
        return None
    if not commit:
        return None
    return f"{commit}+" if differ.returncode else commit
