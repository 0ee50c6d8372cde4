"""The files of a source by folder, which is all that case search looks at: those of a folder on disk, or of what else
can list itself.

A `Path` is a `ScanFile`. So is whatever else has a name to print, says its size and time, and gives its bytes.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from storage.errors import InputError, Refusal

# Larger than any brain scan.
MAX_BYTES = 1 << 32


class UnreadableError(Exception):
    """A file of a source that cannot be had: `finding` says why, `remedy` what to do."""

    def __init__(self, finding: str, remedy: str) -> None:
        super().__init__(finding, remedy)
        self.finding, self.remedy = finding, remedy

    def __str__(self) -> str:
        return f"{self.finding}; {self.remedy}"


class Place(Protocol):
    """Where a file or a folder lies, as it is printed."""

    @property
    def name(self) -> str: ...

    @property
    def parent(self) -> "Place": ...

    @property
    def parts(self) -> tuple[str, ...]: ...


class FileState(Protocol):
    """What tells a file from an earlier one of its name without a look inside."""

    @property
    def st_size(self) -> int: ...

    @property
    def st_mtime_ns(self) -> int: ...


class ScanFile(Place, Protocol):
    """A file of a source: small, hashable, and picklable, since Ray tasks are sent some."""

    def read_bytes(self) -> bytes:
        """All of it. Raises OSError, or UnreadableError where there is more to say."""
        ...

    def stat(self) -> FileState:
        """Its size and time. Raises OSError."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """A folder with its files and folders by name, each in order; nothing is opened to know them.

    A symbolic link to a folder that is listed elsewhere is that folder.
    """

    path: Place
    files: Mapping[str, ScanFile] = field(default_factory=dict)
    folders: Mapping[str, "Folder"] = field(default_factory=dict)

    def walk(self, *, depth: int | None = None) -> Iterator["Folder"]:
        """This folder and those below it, at most `depth` levels down, parents first and each once."""
        seen: set[int] = set()
        waiting = [(self, 0)]
        while waiting:
            folder, level = waiting.pop()
            if id(folder) in seen:
                continue
            seen.add(id(folder))
            yield folder
            if depth is None or level < depth:
                waiting += [(below, level + 1) for below in reversed(list(folder.folders.values()))]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A source: its files, and what of it could not be listed, with the reason."""

    top: Folder
    refused: tuple[Refusal, ...] = ()


def check_folder(root: Path) -> None:
    """Raise InputError where `root` is not a folder."""
    if not root.is_dir():
        raise InputError(f"wanted a folder of BraTS cases, found {'a file' if root.exists() else 'nothing'} at {root}")


def list_folder(root: Path) -> Listing:
    """The files below a folder on disk; symbolic links are followed, each real folder once.

    Raises InputError when `root` is not a folder.
    """
    check_folder(root)
    refused: list[Refusal] = []

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename)
        refused.append(
            Refusal(
                case_id=folder.name,
                file=str(folder),
                finding=f"the folder cannot be listed ({error.strerror})",
                remedy="give this user read and search permission on it",
            )
        )

    by_real_path: dict[Path, Folder] = {}
    folders_of: dict[Path, dict[str, Folder]] = {}  # each folder's own, as they are found
    for name, below, files in os.walk(root, followlinks=True, onerror=unreadable):
        path = Path(name)
        real = path.resolve()
        listed = by_real_path.get(real)
        if listed is not None:
            below.clear()
        else:
            below.sort()
            folders_of[path] = {}
            listed = Folder(path=path, files={file: path / file for file in sorted(files)}, folders=folders_of[path])
            by_real_path[real] = listed
        if path != root:
            folders_of[path.parent][path.name] = listed
    top = by_real_path.get(root.resolve()) or Folder(path=root)
    return Listing(top=top, refused=tuple(refused))
