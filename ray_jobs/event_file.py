"""TensorBoard events of one run. All of them lie on one axis, the steps taken, so that one number says what a resumed
run takes back.

tensorboardX's SummaryWriter hands events to a thread, and its `flush` leaves out what still waits for that thread: of a
process that is killed, those would be lost. Here its writer below that is used, which writes at once.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ray_jobs.figures import as_pixels


class EventFile:
    """Events below `folder`, nothing before `begin`; with None it writes nothing at all (ranks other than 0)."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._writer: EventsWriter | None = None

    def begin(self, step: int) -> None:
        """Open the file. What an earlier start of the run wrote from `step` on is void: TensorBoard drops it."""
        if self._folder is not None and self._writer is None:
            # Of two starts in one second the later would write over the earlier's file: names end in the second.
            self._writer = EventsWriter(str(self._folder / "events"), f".{time.time_ns()}")
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=step, session_log=start))

    def scalars(self, values: Mapping[str, float], step: int, *, group: str = "") -> None:
        """Write `values` under their names, below `group` if there is one."""
        for name, value in values.items():
            self._write(summary.scalar(f"{group}/{name}" if group else name, value), step)

    def figure(self, name: str, draw: Callable[[], Figure], step: int) -> None:
        """Write what `draw` draws as an image."""
        if self._writer is not None:
            self._write(summary.image(name, as_pixels(draw()), dataformats="HWC"), step)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """End the file; safe to call twice."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _write(self, what: Summary, step: int) -> None:
        if self._writer is not None:
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=what))
