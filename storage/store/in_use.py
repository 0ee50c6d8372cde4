"""One command at a time writes to a folder: a mark in it names the command, and is renewed while that lives.

A mark left by a command that is gone does not count: on the machine it names, that is seen at once; elsewhere by its no
longer being renewed. A new mark has the next number, and objects that are there already cannot be made: of two commands
that find the same dead one only the first gets it, on disk and on S3.
"""

import datetime
import itertools
import json
import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storage.errors import InputError
from storage.store.objects import Objects

Mark = dict[str, Any]

MARK = "in_use_"
RENEW_SECONDS = 5.0
SILENT_RENEWALS = 4  # that a living command may leave out, as a busy machine or a slow bucket would have it


@contextmanager
def only_writer(uri: str, remedy: str) -> Iterator[None]:
    """Hold the folder or s3:// URL for the body. Raises InputError, with `remedy`, where another command holds it."""
    objects, mark = Objects(uri, create=True), _make_mark()
    key = _take(objects, mark, remedy)
    ended = threading.Event()

    def renew() -> None:
        for beat in itertools.count(1):
            if ended.wait(RENEW_SECONDS):
                return
            with suppress(InputError):  # a bucket that is away for a while; the next renewal will do
                if _read(objects, key) is not None:  # else it was taken for dead, and the place is another's
                    objects.put(key, _encode(mark | {"beat": beat}))

    thread = threading.Thread(target=renew, name="in-use", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(InputError):
            objects.delete(key)


def _take(objects: Objects, mine: Mark, remedy: str) -> str:
    """Make the mark that comes after all dead ones; return its key."""
    dead: dict[str, str] = {}  # the holder of each mark that was found so
    while True:
        marks = _marks(objects)
        for key, found in marks.items():
            if found["holder"] != mine["holder"] and _is_alive(objects, key, found):
                who = f"`{found['command']}` (process {found['pid']} on {found['host']}, since {found['since']})"
                raise InputError(f"{objects.uri} is in use by {who}: {remedy}")
            dead[key] = found["holder"]
        number = int(max(marks).removeprefix(MARK).removesuffix(".json")) + 1 if marks else 1
        own = f"{MARK}{number:06d}.json"
        if not objects.create(own, _encode(mine)):
            continue  # another was quicker; or this is the answer to a request that was heard before it was repeated
        earlier = {key: found["holder"] for key, found in _marks(objects).items() if key < own}
        if earlier.items() <= dead.items():
            for key in earlier:
                objects.delete(key)
            return own
        objects.delete(own)  # one came between, where an earlier one had ended meanwhile


def _marks(objects: Objects) -> dict[str, Mark]:
    found = {file: _read(objects, file) for file in objects.files() if file.startswith(MARK)}
    return {file: mark for file, mark in found.items() if mark is not None}


def _make_mark() -> Mark:
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "holder": secrets.token_hex(8),
        "process": _identify(os.getpid()),
        "beat": 0,
    }


def _encode(mark: Mark) -> bytes:
    return (json.dumps(mark, indent=2) + "\n").encode()


def _read(objects: Objects, key: str) -> Mark | None:
    found = objects.get(key)
    return None if found is None else json.loads(found)


def _identify(pid: int) -> list[str] | None:
    """Return the machine's start, the container, and which process of that number it is, where known."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        container = str(Path("/proc/self/ns/pid").readlink())
        started = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None
    return [machine, container, started]


def _is_alive(objects: Objects, key: str, mark: Mark) -> bool:
    here = _identify(os.getpid())
    if here is not None and mark["process"] is not None and mark["process"][:2] == here[:2]:
        return _identify(mark["pid"]) == mark["process"]
    until = time.monotonic() + SILENT_RENEWALS * RENEW_SECONDS
    while time.monotonic() < until:
        time.sleep(RENEW_SECONDS / 5)
        found = _read(objects, key)
        if found is None:
            return False
        if found["beat"] != mark["beat"]:
            return True
    return False
