"""What showing a report is told."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from storage import InputError


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Make the report of a run, a search, a cross-validation or predictions anew, and open it in a browser."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Its folder, a path or an s3:// URL; or its name among the runs (BRATS_RUNS, else ./runs)."""
    serve: bool = False
    """Serve it on loopback until Ctrl-C, made anew at each look, and open nothing: for a machine far away, with
    ssh -L 8000:127.0.0.1:8000 there."""
    port: int = 8000
    """Of loopback, for --serve; 0 takes a free one."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise InputError(f"--port must be from 0 to 65535, got {self.port}")
