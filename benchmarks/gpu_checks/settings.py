"""What the check of a GPU can be told. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.settings import Recorded


@dataclass(frozen=True, kw_only=True)
class GpuCheck(Recorded):
    """Check and measure what only a machine with a GPU can show, within some minutes; docs/gpu.md explains the rows."""

    store: str | None = None
    """A converted cohort, path or URL; without it a synthetic one is written first."""
    device: str = "cuda:0"
    """cuda:N; cpu runs what a CPU can, to test this program."""
    minutes: float = 10.0
    """For all checks together: those that there is no time left for are named and left out."""
    side: int = 64
    """Of the patches that are checked; what is measured on a GPU has 128."""
    json: Path | None = Path("gpu-check.json")
    """Write what was found so far to this file, anew after each check."""
