"""Compressed tar archives, which can only be read from their beginning to their end: a pass over their files."""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

from zlib_ng import zlib_ng

from storage.archives.member import AGAIN, Contents, Member, checked
from storage.archives.ranges import Ranges
from storage.archives.tar_archive import Header, cut, fault_of, time_of
from storage.errors import InputError
from storage.scans.gunzip import GZIP_WINDOW, is_gzip
from storage.scans.listing import UnreadableError

_DAMAGED = cast(type[Exception], zlib_ng.error)  # the package's stubs declare this class as an instance
# S3 takes a round trip a read; what zlib is given and does not take in at once it hands back as a copy.
_PIECE = 1 << 23
_BITE = 1 << 16
DECOMPRESS = "decompress the archive to a .tar, which is read wherever its files lie"


@dataclass(frozen=True, kw_only=True)
class StreamedMember(Member):
    """A file as it came by, where it was held. `squeezed`: held compressed, since it is a label and most of it is 0."""

    data: bytes | None = field(default=None, repr=False, compare=False)
    squeezed: bool = field(default=False, compare=False)

    def _read(self) -> bytes:
        if self.data is None:
            raise UnreadableError("the archive can only be read from its beginning, and this was let go by", DECOMPRESS)
        return zlib_ng.decompress(self.data) if self.squeezed else self.data

    def squeezed_up(self) -> "StreamedMember":
        """The same, held in less."""
        if self.data is None or is_gzip(self.data):
            return self
        return replace(self, data=zlib_ng.compress(self.data, 1), squeezed=True)


class StreamEndsError(Exception):
    """The compressed stream is cut off."""


class StreamDamagedError(StreamEndsError):
    """Some of what it gave may be wrong, too."""


class _Gunzipped:
    """The archive's bytes, decompressed from the beginning on; all that tarfile wants is `read`."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._at = 0
        self._piece = memoryview(b"")
        self._packed = b""
        self._stream = zlib_ng.decompressobj(wbits=GZIP_WINDOW)

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`; none at the end. Raises StreamEndsError."""
        while True:
            if self._stream.eof:
                self._packed = self._stream.unused_data
                if len(self._packed) < 2:
                    self._packed += self._fetch()
                if not is_gzip(self._packed):  # the end, or what some tools pad it with
                    return b""
                self._stream = zlib_ng.decompressobj(wbits=GZIP_WINDOW)
            packed = self._packed or self._fetch()
            if not packed:
                raise StreamEndsError("the gzip stream is cut off")
            try:
                data = self._stream.decompress(packed, size)
            except _DAMAGED as error:
                raise StreamDamagedError(f"the gzip stream is damaged: {error}") from None
            self._packed = self._stream.unconsumed_tail
            if data:
                return data

    def _fetch(self) -> bytes:
        if not len(self._piece):
            self._piece = memoryview(self._ranges.read_at(self._at, _PIECE))
            self._at += len(self._piece)
        bite, self._piece = self._piece[:_BITE], self._piece[_BITE:]
        return bytes(bite)


@dataclass(kw_only=True)
class StreamContents(Contents):
    """`damaged`: what was read may be wrong, and only a file with a checksum of its own shows whether it is."""

    damaged: bool = False


def stream_members(
    ranges: Ranges, contents: StreamContents, wanted: Callable[[StreamedMember], bool]
) -> Iterator[StreamedMember]:
    """List every file in `contents` and yield it as it comes by, with its bytes where it is `wanted` and sound.

    What cannot be read on is refused in `contents`. Raises InputError where the archive does not begin as one.
    """
    stream = _Gunzipped(ranges)
    try:
        archive = tarfile.open(  # noqa: SIM115
            fileobj=cast(BinaryIO, stream), mode="r|", bufsize=1 << 18, tarinfo=Header
        )
    except (tarfile.TarError, StreamEndsError) as error:
        raise InputError(f"wanted a tar archive, gzipped, {ranges.uri} cannot be read ({error}); {AGAIN}") from None
    try:
        for info in archive:
            inside = contents.place(info.name)
            if inside is None or info.isdir():
                continue
            member = checked(
                StreamedMember(
                    archive=ranges.uri, inside=inside, size=info.size, mtime_ns=time_of(info), fault=fault_of(info)
                )
            )
            contents.add(member)
            if member.fault is None and wanted(member):
                file = archive.extractfile(info)
                data = file.read() if file is not None else b""
                yield replace(member, data=data)
            else:
                yield member
        _read_to_the_end(archive, contents)
    except (tarfile.TarError, StreamEndsError) as error:
        contents.refuse("", cut(archive.offset, str(error)))
        contents.damaged = isinstance(error, StreamDamagedError)


def _read_to_the_end(archive: tarfile.TarFile, contents: StreamContents) -> None:
    """To the checksum, which comes last. What is no header ends the archive for tarfile without a word."""
    stream = archive.fileobj
    assert stream is not None
    found = "no end mark" if stream.tell() == archive.offset else ""
    while rest := stream.read(_BITE):
        if rest.strip(b"\0"):
            found = "a damaged header"
    if found:
        contents.refuse("", cut(archive.offset, found))
