"""TensorBoard events of one run. All of them lie on one axis, the steps taken, so that one number says what a resumed
run takes back.

tensorboardX's SummaryWriter hands events to a thread, and its `flush` leaves out what still waits for that thread: of a
process that is killed, those would be lost. Here its writer below that is used, which writes at once. A disk that takes
no more costs the events, never the run.
"""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from ray_jobs.pictures.figures import as_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EventFile:
    """Events below `folder`, nothing before `begin`; with None it writes nothing at all (ranks other than 0).

    `tell` is given one line where the events end early.
    """

    def __init__(self, folder: Path | None, tell: Callable[[str], None]) -> None:
        self._folder, self._tell = folder, tell
        self._writer: RecordWriter | None = None

    def begin(self, step: int) -> None:
        """Open the file. What an earlier start of the run wrote from `step` on is void: TensorBoard drops it."""
        if self._folder is not None and self._writer is None:
            # Two starts in one second must not write to one file.
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{time.time_ns()}"
            with self._ended_by_a_full_disk():
                self._writer = RecordWriter(str(self._folder / name))
            self._write(Event(file_version="brain.Event:2"))
            self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, values: Mapping[str, float], step: int, *, group: str = "", description: str = "") -> None:
        """Write `values` under their names, below `group` if there is one, with what TensorBoard says beside them."""
        for name, value in values.items():
            scalar = summary.scalar(f"{group}/{name}" if group else name, value, summary_description=description)
            self._write(Event(step=step, summary=scalar))

    def figure(self, name: str, draw: Callable[[], "Figure"], step: int) -> None:
        """Write what `draw` draws as an image."""
        if self._writer is not None:
            self._write(Event(step=step, summary=summary.image(name, as_pixels(draw()), dataformats="HWC")))

    def flush(self) -> None:
        """Bring what was written to the disk."""
        if self._writer is not None:
            with self._ended_by_a_full_disk():
                self._writer.flush()

    def close(self) -> None:
        """End the file; safe to call twice."""
        self.flush()
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _write(self, event: Event) -> None:
        if self._writer is not None:
            event.wall_time = time.time()
            with self._ended_by_a_full_disk():
                self._writer.write(event.SerializeToString())

    @contextmanager
    def _ended_by_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            writer, self._writer, self._folder = self._writer, None, None
            if writer is not None:
                with suppress(OSError):
                    writer.close()  # tries to write what it still holds, and closes all the same
            self._tell(f"no more events for TensorBoard until the run is started again: {error}")
