"""The output of a prediction: what it is (config.json), and for each case its files and, last, the record of them.

A case with a record from the same input is done; what a killed run left of another is written anew.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray_jobs.run_folder import CONFIG, differences
from storage import InputError

RECORD = "{case_id}_seg.json"


class PredictionFolder:
    """The folder at `path`. Nothing is written before `claim`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Take the folder for predictions made as `identity` says, which is JSON.

        Raises InputError, naming what differs, where those in it were made otherwise, and where it cannot be used.
        """
        before = self._read(CONFIG)
        if before is None:
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise InputError(f"wanted a new, empty or own folder as --output, found other files at {self.path}")
            self.write(CONFIG, _encode(identity))
            return
        changes = sorted(differences(before, dict(identity)))
        if changes:
            raise InputError(
                f"the predictions in {self.path} were made otherwise ({'; '.join(changes[:6])}): "
                "give another --output, or the same values to go on"
            )

    def record(self, case_id: str, source: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the record of a finished case; None where it is not, or was made from other files than `source`."""
        record = self._read(RECORD.format(case_id=case_id))
        if record is None or record["source"] != json.loads(json.dumps(source)):
            return None
        return record if all((self.path / name).is_file() for name in record["files"]) else None

    def finish(self, files: Mapping[str, bytes], record: Mapping[str, Any]) -> dict[str, Any]:
        """Write a case's files, then its record with their names; return the record as it will be read again."""
        place = RECORD.format(case_id=record["case_id"])
        (self.path / place).unlink(missing_ok=True)  # first, so that it never speaks of files that are half replaced
        for name, content in files.items():
            self.write(name, content)
        whole = _encode({**record, "files": sorted(files)})
        self.write(place, whole)
        decoded: dict[str, Any] = json.loads(whole)
        return decoded

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; raises InputError where the disk does not take it."""
        path = self.path / name
        part = path.with_name(f".part-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise InputError(
                f"cannot write {path}: {error.strerror or error}; free space or name another --output, "
                "what is finished is kept"
            ) from None

    def read(self, name: str) -> bytes:
        """Return the bytes of a file that a record names."""
        return (self.path / name).read_bytes()

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {self.path / name}: {error}; name another --output, or remove it") from None
        return content


def refuse_overlap(output: Path, source: Path) -> None:
    """Raise InputError where predictions would lie among the scans, to be taken for labels the next time."""
    if os.path.commonpath([output, source]) == str(source):
        raise InputError(
            f"wanted an --output outside the input {source}, got {output}: its files would count as labels"
        )


def _encode(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
