"""Events read back: each scalar's values over the steps, as TensorBoard would show them, and the last pictures."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tensorboard.compat.proto.event_pb2 import Event, SessionLog

_LENGTH = struct.Struct("<Q")
_BEFORE, _AFTER = 12, 4  # bytes around a record: its length and that one's checksum; its own checksum


@dataclass(frozen=True, kw_only=True)
class Events:
    """What a run's event files hold: `scalars` are (step, value) in order of the steps, `pictures` the last PNGs."""

    scalars: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)


def read_events(files: Iterable[bytes]) -> Events:
    """Return the events of a run's files, the earliest first. What a later start did again replaces the earlier."""
    found = Events()
    for event in (event for file in files for event in _events_of(file)):
        if event.session_log.status == SessionLog.START:
            for name, values in found.scalars.items():
                found.scalars[name] = [value for value in values if value[0] < event.step]
        for value in event.summary.value:
            if value.HasField("image"):
                found.pictures[value.tag] = value.image.encoded_image_string
            else:
                found.scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def _events_of(file: bytes) -> Iterator[Event]:
    """The whole records of a file: a run that goes on may be writing another."""
    at = 0
    while at + _BEFORE <= len(file):
        (length,) = _LENGTH.unpack_from(file, at)
        end = at + _BEFORE + length
        if end + _AFTER > len(file):
            return
        yield Event.FromString(file[at + _BEFORE : end])
        at = end + _AFTER
