"""Tar archives: the headers are read once, from one to the next, and each member where it lies, by whoever wants it."""

import tarfile
from dataclasses import dataclass
from decimal import Decimal

from storage.archives.member import AGAIN, Contents, Fault, Member, checked
from storage.archives.ranges import Ranges, as_file
from storage.errors import InputError
from storage.scans.listing import Listing, UnreadableError

_KINDS = {
    tarfile.SYMTYPE: "a symbolic link, not a file",
    tarfile.LNKTYPE: "a link to another member, not a file",
    tarfile.CHRTYPE: "a device, not a file",
    tarfile.BLKTYPE: "a device, not a file",
    tarfile.FIFOTYPE: "a pipe, not a file",
}


# Names and times that do not fit into a header go before it in a block of their own.
_LONG_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_MAX_HEADER = 1 << 20


class Header(tarfile.TarInfo):
    """A header whose size tarfile can believe: it goes back for a negative one, and into memory with a long one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "Header":
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in _LONG_HEADERS and header.size > _MAX_HEADER):
            raise tarfile.ReadError(f"a header that announces {header.size} bytes")
        return header


@dataclass(frozen=True, kw_only=True)
class TarMember(Member):
    """`offset` is where its bytes begin in the archive, which ends at `end`."""

    offset: int
    end: int

    def _read(self) -> bytes:
        data = Ranges(self.archive, self.end).read_at(self.offset, self.size)
        if len(data) != self.size:
            raise UnreadableError(f"the archive ends after {len(data)} of its {self.size} bytes", AGAIN)
        return data


def list_tar(ranges: Ranges) -> Listing:
    """The files of a tar archive that is not compressed. Raises InputError where it does not begin as one."""
    contents = Contents(archive=ranges.uri)
    file = as_file(ranges)
    try:
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=Header)  # noqa: SIM115 - it holds nothing that `file` does not
    except tarfile.TarError as error:
        raise InputError(f"wanted a tar archive, {ranges.uri} cannot be read ({error}); {AGAIN}") from None
    try:
        for info in archive:
            inside = contents.place(info.name)
            if inside is not None and not info.isdir():
                member = TarMember(
                    archive=ranges.uri,
                    inside=inside,
                    size=info.size,
                    mtime_ns=time_of(info),
                    offset=info.offset_data,
                    end=ranges.size,
                    fault=fault_of(info),
                )
                contents.add(checked(member))
    except tarfile.TarError as error:
        contents.refuse("", cut(archive.offset, str(error)))
    else:
        # What is no header ends the archive for tarfile without a word, zeros or not.
        mark = ranges.read_at(archive.offset, tarfile.BLOCKSIZE)
        if mark.strip(b"\0") or len(mark) < tarfile.BLOCKSIZE:
            contents.refuse("", cut(archive.offset, "a damaged header" if mark else "no end mark"))
    return contents.listing()


def fault_of(info: tarfile.TarInfo) -> Fault | None:
    """Why a member is no file that can be read as it lies."""
    if info.sparse is not None:
        return Fault("a sparse file")
    return None if info.isreg() else Fault(_KINDS.get(info.type, "no plain file"))


def time_of(info: tarfile.TarInfo) -> int:
    """Nanoseconds since 1970, as the file has them when it is unpacked."""
    return int(Decimal(info.pax_headers.get("mtime") or str(info.mtime)) * 10**9)


def cut(offset: int, found: str) -> Fault:
    """An archive that ends where it should not."""
    return Fault(f"the archive cannot be read past byte {offset} ({found}): what followed is not known", AGAIN)
