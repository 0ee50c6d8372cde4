"""A run's folder, on disk or S3: what a run is (config.json) and what came of it (summary.json)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs

from storage import InputError

CONFIG, SUMMARY = "config.json", "summary.json"


class RunFolder:
    """The folder of run `name` below `runs`, a local path or an s3:// URL. Nothing is written before `claim`."""

    def __init__(self, runs: str, name: str) -> None:
        if not name or "/" in name or name.startswith("."):
            raise InputError(f"--name must be a plain word without slashes, got {name!r}")
        self.name = name
        self.runs = runs if "://" in runs else str(Path(runs).expanduser().resolve())
        self.uri = f"{self.runs}/{name}"
        try:
            self._filesystem, root = pyarrow.fs.FileSystem.from_uri(self.runs)
        except (OSError, ValueError) as error:
            raise InputError(f"--runs must be a folder or an s3:// URL, got {runs!r}: {error}") from error
        self._path = f"{root}/{name}"

    def claim(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Take the folder for the run that `identity` describes; return its summary if the run is finished.

        Raises InputError, naming what differs, where the folder belongs to a run with another configuration or store.
        """
        before = self.read(CONFIG)
        if before is None:
            self.write(CONFIG, identity)
            return None
        changes = sorted(differences(before, dict(identity)))
        if changes:
            raise InputError(
                f"run {self.name} in {self.runs} was started otherwise ({'; '.join(changes[:6])}): "
                "give another --name, or the same values to resume it"
            )
        return self.read(SUMMARY)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json: from now on the run is finished."""
        self.write(SUMMARY, summary)

    def read(self, file: str) -> dict[str, Any] | None:
        """Return what JSON `file` says, None where there is none. Raises InputError where it cannot be read."""
        path = f"{self._path}/{file}"
        try:
            if self._filesystem.get_file_info(path).type != pyarrow.fs.FileType.File:
                return None
            with self._filesystem.open_input_stream(path) as stream:
                content: dict[str, Any] = json.loads(stream.read())
        except (OSError, ValueError) as error:
            raise InputError(f"--runs {self.runs} cannot be read: {file}: {error}") from error
        return content

    def write(self, file: str, content: Mapping[str, Any]) -> None:
        """Write `content` as JSON to `file`, whole or not at all."""
        self.put(file, (json.dumps(content, indent=2) + "\n").encode())

    def put(self, file: str, content: bytes) -> None:
        """Write `file`, whole or not at all; raises InputError where it cannot be."""
        path = f"{self._path}/{file}"
        try:
            self._filesystem.create_dir(self._path)
            with self._filesystem.open_output_stream(f"{path}.part") as stream:
                stream.write(content)
            self._filesystem.move(f"{path}.part", path)
        except OSError as error:
            raise InputError(
                f"cannot write {file} to {self.uri}: {error}; make room or get permission there, then the same command "
                "goes on"
            ) from error


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Return `name: before -> now` for each leaf that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [line for key in keys for line in differences(before.get(key), now.get(key), f"{name}.{key}".strip("."))]
    return [] if before == now else [f"{name}: {before} -> {now}"]
