"""Where the commands print."""

import os
import sys

from rich.console import Console

WIDTH_OF_A_LOG = 160


def open_console() -> Console:
    """Return a console as wide as the terminal; in a log, such as a submitted job's, wide enough to break no line."""
    is_log = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=WIDTH_OF_A_LOG if is_log else None)
