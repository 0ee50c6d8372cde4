"""What Ray's monitor, which starts and ends a cluster's machines, writes down on the head, where jobs' drivers run."""

import contextlib
from pathlib import Path

import ray

MONITOR_LOG, MONITOR_OUT = "monitor.log", "monitor.out"


class NewLines:
    """The whole lines that are added to `file` from now on, which need not be there yet, or any more.

    It goes with its cluster, at any moment.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._read = file, 0
        with contextlib.suppress(FileNotFoundError):
            self._read = file.stat().st_size

    def read(self) -> str:
        """Those since the last time."""
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._read)
                whole = stream.read().rpartition(b"\n")[0]  # a line that is being written is read the next time
        except FileNotFoundError:
            return ""
        self._read += len(whole)
        return whole.decode(errors="replace")


def find_logs() -> Path | None:
    """The folder with the monitor's logs; None where this process, which has joined a cluster, is not on its head."""
    node = ray._private.worker._global_node  # none in a client of `ray://`
    logs = Path(node.get_logs_dir_path()) if node is not None else None
    return logs if logs is not None and (logs / MONITOR_LOG).exists() else None
