"""What a user names as a source: a folder, or an archive on disk or on S3, by its first bytes."""

import tarfile
from contextlib import suppress
from enum import Enum
from pathlib import Path

from storage.archives.ranges import Ranges
from storage.errors import InputError

CASES = "a folder of BraTS cases, or a .zip, .tar or .tar.gz of them"
# What else people download, by its first bytes.
_OTHERS = {
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
}


class SourceKind(Enum):
    """How a source's files can be read."""

    FOLDER = "each where it lies, by its path"
    ZIP = "each where it lies, after the directory at the end"
    TAR = "each where it lies, after a look at every header"
    STREAM = "one after the other, from the beginning"


def find_kind(source: str | Path, *, wanted: str = CASES) -> SourceKind:
    """What lies at a path or an s3:// URL, by its first bytes; raises InputError where that is not what is `wanted`."""
    place = place_of(source)
    if not place.startswith("s3://") and Path(place).is_dir():
        return SourceKind.FOLDER
    if "://" not in place and not Path(place).exists():
        raise InputError(f"wanted {wanted}, found nothing at {place}")
    try:
        head = Ranges(place).read_at(0, 512)
    except OSError as error:
        raise InputError(f"wanted {wanted}, {place} cannot be read: {error.strerror or error}") from None
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return SourceKind.ZIP
    if head.startswith(b"\x1f\x8b") and not place.lower().endswith(".nii.gz"):
        return SourceKind.STREAM
    with suppress(tarfile.TarError):  # its first header has a checksum
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        return SourceKind.TAR
    other = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    remedy = "name the folder that it lies in" if other is None else "unpack it and name the folder"
    raise InputError(f"wanted {wanted}, found {other or 'a file'} at {place}; {remedy}")


def is_archive_name(source: str) -> bool:
    """Whether a URL is that of an archive, and not of a store: said by its name alone."""
    return source.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def place_of(source: str | Path) -> str:
    """The place as every machine understands it: an absolute path without links, or the URL."""
    text = str(source)
    if text.startswith("s3://"):
        return text.rstrip("/")
    if "://" in text:
        raise InputError(f"wanted a path or an s3:// URL, got {text}")
    return str(Path(text).expanduser().resolve())
