"""A run's folder, on disk or S3: what a run is (config.json) and what came of it (summary.json)."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from ray_jobs.settings.config import without_former_parts
from ray_jobs.settings.folders import refuse_odd_name
from storage import InputError
from storage.store.in_use import only_writer
from storage.store.objects import Objects, parse_uri

CONFIG, SUMMARY = "config.json", "summary.json"


class RunFolder:
    """The folder of run `name` below `runs`, a local path or an s3:// URL. Nothing is written before `claim`."""

    def __init__(self, runs: str, name: str) -> None:
        refuse_odd_name(name)
        try:
            parse_uri(runs)
        except InputError as error:
            raise InputError(f"--runs must be a folder or an s3:// URL, got {runs!r}: {error}") from error
        self.name = name
        self.runs = runs if "://" in runs else str(Path(runs).expanduser().resolve())
        self.uri = f"{self.runs}/{name}"

    def inside(self, name: str) -> "RunFolder":
        """Return the folder of a run that is a part of this one."""
        inner = RunFolder(self.runs, name)
        inner.name, inner.uri = f"{self.name}/{name}", f"{self.uri}/{name}"
        return inner

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.runs, create=True)

    def claim(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Take the folder for the run that `identity` describes; return its summary if the run is finished.

        Raises InputError, naming what differs, where the folder belongs to a run with another configuration or store.
        """
        before = self.read(CONFIG)
        if before is None and self._make(CONFIG, encode_json(identity)):
            return None
        changes = describe_changes(without_former_parts(before or self.read(CONFIG) or {}), identity)
        if changes:
            remedy = "give another --name, or the same values to resume it"
            if self.read(SUMMARY) is not None:
                remedy = f"give another --name, with --init-from {shlex.quote(self.uri)} to begin with its weights"
            raise InputError(f"run {self.name} in {self.runs} was started otherwise ({changes}): {remedy}")
        return self.read(SUMMARY)

    def only_writer(self) -> AbstractContextManager[None]:
        """Hold the run for the body. Raises InputError where another command that lives is at it."""
        return only_writer(self.uri, "wait for its end, stop it, or give another --name")

    def read(self, file: str) -> dict[str, Any] | None:
        """Return what JSON `file` says, None where there is none. Raises InputError where it cannot be read."""
        try:
            content = self._objects.get(f"{self.name}/{file}")
            return None if content is None else json.loads(content)
        except (InputError, ValueError) as error:
            raise InputError(f"--runs {self.runs} cannot be read: {file}: {error}") from error

    def write(self, file: str, content: Mapping[str, Any]) -> None:
        """Write `content` as JSON to `file`, whole or not at all. With a summary.json the run is finished."""
        self.put(file, encode_json(content))

    def put(self, file: str, content: bytes) -> None:
        """Write `file`, whole or not at all; raises InputError where it cannot be."""
        with self._writing(file):
            self._objects.put(f"{self.name}/{file}", content)

    def _make(self, file: str, content: bytes) -> bool:
        with self._writing(file):
            return self._objects.create(f"{self.name}/{file}", content)

    @contextmanager
    def _writing(self, file: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(
                f"cannot write {file} to {self.uri}: {error}; make room or get permission there, then the same command "
                "goes on"
            ) from error


def encode_json(content: Mapping[str, Any]) -> bytes:
    """Return the content of a JSON file that people read too."""
    return (json.dumps(content, indent=2) + "\n").encode()


def decode_json(content: bytes, place: str) -> dict[str, Any]:
    """Return what a JSON file at `place` says; raises InputError where it is cut off or no object."""
    try:
        said = json.loads(content)
    except ValueError as error:
        raise InputError(f"{place} is damaged ({error}): give another folder, or bring the file back") from error
    if not isinstance(said, dict):
        raise InputError(f"wanted {place} as these commands write it, found another file of that name")
    return said


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return `name: before -> now` of what differs, six at most; an empty text where nothing does."""
    return "; ".join(sorted(_differences(before, now))[:6])


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = sorted({*before, *now})
        lines = (_differences(before.get(key), now.get(key), f"{name}.{key}".strip(".")) for key in keys)
        return [line for each in lines for line in each]
    return [] if before == now else [f"{name}: {before} -> {now}"]
