"""The output of a command that does case by case: what it is (config.json), and for each case its files, then a record.

A case with a record from the same input is done; what a killed run left of another is written anew.
"""

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ray_jobs.checkpoints.run_folder import CONFIG, describe_changes, encode_json
from storage import InputError
from storage.scans.listing import ScanFile
from storage.store.in_use import only_writer
from storage.store.objects import Objects, parse_uri


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What came of a case: files by their names below the output folder, and what its record says."""

    files: Mapping[str, bytes]
    record: Mapping[str, Any]


class CaseFolder:
    """The folder at a path (`folder`, None elsewhere) or an s3:// URL. Nothing is made before `claim`.

    `record` is how a case's is called, and `made` what is kept there, for messages.
    """

    def __init__(self, uri: str | Path, *, record: str, made: str) -> None:
        self.uri, self.folder = parse_uri(uri)
        self._record, self._made = record, made

    @cached_property
    def _objects(self) -> Objects:
        return Objects(self.uri, create=True)

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Take the folder for what is made as `identity` says, which is JSON.

        Raises InputError, naming what differs, where those in it were made otherwise, and where it cannot be used.
        """
        if self._objects.is_empty() and self._objects.create(CONFIG, encode_json(identity)):
            return
        before = self._read(CONFIG)
        if before is None:
            raise InputError(f"wanted a new, empty or own folder as --output, found other files at {self.uri}")
        changes = describe_changes(before, identity)
        if changes:
            raise InputError(
                f"the {self._made} in {self.uri} were made otherwise ({changes}): "
                "give another --output, or the same values to go on"
            )

    def only_writer(self) -> AbstractContextManager[None]:
        """Hold the folder for the body. Raises InputError where another command that lives is at it."""
        return only_writer(self.uri, "wait for its end, stop it, or give another --output")

    def finished(self, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the records of finished cases by id, of those in `sources`: all files there, made from the same."""
        there = set(self._objects.keys())
        places = {place: case_id for case_id in sources if (place := self._record.format(case_id=case_id)) in there}
        records = {}
        for (place, case_id), encoded in zip(places.items(), self._objects.get_many(list(places)), strict=True):
            record = self._decode(place, encoded)
            same = record is not None and record.get("source") == json.loads(json.dumps(sources[case_id]))
            if record is not None and same and there.issuperset(record["files"]):
                records[case_id] = record
        return records

    def finish(self, files: Mapping[str, bytes], record: Mapping[str, Any]) -> dict[str, Any]:
        """Write a case's files, then its record with their names; return the record as it will be read again."""
        place = self._record.format(case_id=record["case_id"])
        self._objects.delete(place)  # first, so that it never speaks of files that are half replaced
        for name, content in files.items():
            self.write(name, content)
        whole = encode_json({**record, "files": sorted(files)})
        self.write(place, whole)
        decoded: dict[str, Any] = json.loads(whole)
        return decoded

    def discard(self, case_id: str) -> None:
        """Remove what an earlier run made of a case that is now refused."""
        place = self._record.format(case_id=case_id)
        record = self._read(place)
        if record is not None:
            for name in (place, *record["files"]):
                self._objects.delete(name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; raises InputError where the disk or bucket does not take it."""
        self._objects.put(name, content)

    def read(self, name: str) -> bytes:
        """Return the bytes of a file that a record names; raises InputError where it went meanwhile."""
        content = self._objects.get(name)
        if content is None:
            raise InputError(f"{name} was removed from {self.uri} meanwhile; run the same command again")
        return content

    def _read(self, name: str) -> dict[str, Any] | None:
        return self._decode(name, self._objects.get(name))

    def _decode(self, name: str, encoded: bytes | None) -> dict[str, Any] | None:
        if encoded is None:
            return None
        try:
            content: dict[str, Any] = json.loads(encoded)
        except ValueError as error:
            raise InputError(f"cannot read {self.uri}/{name}: {error}; name another --output, or remove it") from None
        return content


def describe_file(path: ScanFile) -> list[Any]:
    """Return what tells whether the file is another one by now."""
    try:
        state = path.stat()
    except OSError as error:
        return [path.name, error.strerror]  # reading it will say more
    return [path.name, state.st_size, state.st_mtime_ns]


def refuse_overlap(output: Path, source: Path) -> None:
    """Raise InputError where the output would lie among the scans, to be taken for labels the next time."""
    if os.path.commonpath([output, source]) == str(source):
        raise InputError(
            f"wanted an --output outside the input {source}, got {output}: its files would count as labels"
        )
