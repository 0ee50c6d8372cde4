"""The bytes of one file at any place in it, on disk or on S3: what an archive is read through."""

import io
import os
from functools import lru_cache
from pathlib import Path

from storage.errors import InputError
from storage.store.objects import Objects

# A tar's headers lie far apart, and a zip's directory is read in one piece whatever this is.
_BUFFER = 1 << 14


class Ranges:
    """A file that is read piece by piece, at a path or an s3:// URL; `size` spares a look at S3 where it is known.

    Raises InputError where there is no such file; reading raises OSError on disk, InputError on S3.
    """

    def __init__(self, uri: str, size: int | None = None) -> None:
        self.uri = uri
        self._remote: tuple[Objects, str] | None = None
        if uri.startswith("s3://"):
            folder, _, key = uri.rpartition("/")
            if folder == "s3:/":
                raise InputError(f"wanted s3://BUCKET/NAME of an archive, got {uri}")
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            self._remote = _open_objects(folder, endpoint), key
        found = size if size is not None else self._find_size()
        if found is None:
            raise InputError(f"wanted an archive at {uri}, found nothing; check the place")
        self.size = found

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on, fewer only where the file ends."""
        size = min(size, self.size - offset)
        if size <= 0:
            return b""
        if self._remote is not None:
            objects, key = self._remote
            return objects.get_range(key, offset, size)
        with Path(self.uri).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def _find_size(self) -> int | None:
        if self._remote is not None:
            objects, key = self._remote
            return objects.size(key)
        path = Path(self.uri)
        return path.stat().st_size if path.is_file() else None


@lru_cache(maxsize=4)
def _open_objects(folder: str, endpoint: str | None) -> Objects:
    """What is below an S3 URL; of one endpoint, whose connections its readers share."""
    return Objects(folder)


class _RangesFile(io.RawIOBase):
    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ranges.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._ranges.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def as_file(ranges: Ranges) -> io.BufferedReader:
    """The same bytes as a file, for those who want one."""
    return io.BufferedReader(_RangesFile(ranges), _BUFFER)
