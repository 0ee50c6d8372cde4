"""Zip archives: the directory at the end is read once, and each member where it lies, by whoever wants it.

Source: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", sections 4.3.7 (local file header) and 4.4.5 (methods).
"""

import datetime
import stat
import struct
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from zlib_ng import zlib_ng

from storage.archives.member import AGAIN, Contents, Fault, Member, checked
from storage.archives.ranges import Ranges, as_file
from storage.errors import InputError
from storage.scans.gunzip import is_gzip
from storage.scans.listing import Listing, UnreadableError
from storage.scans.naming import is_nifti_name

_DAMAGED = cast(type[Exception], zlib_ng.error)  # the package's stubs declare this class as an instance
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_RAW_DEFLATE = -15
_METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}
# A local header's extra field is not told by the directory. Where it is longer the member is read twice.
_EXTRA = 512
_SURPLUS = 1 << 20
_EPOCH = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, kw_only=True)
class ZipMember(Member):
    """`header` is where its local header begins, `end` where the archive does."""

    header: int
    packed: int
    deflated: bool
    crc: int
    end: int

    def _read(self) -> bytes:
        data = self._inflate(self._read_packed()) if self.deflated else self._read_packed()
        if len(data) != self.size or zlib_ng.crc32(data) != self.crc:
            raise UnreadableError("damaged in the archive: its checksum is wrong", AGAIN)
        return data

    def _read_packed(self) -> bytes:
        ranges = Ranges(self.archive, self.end)
        head = _LOCAL_HEADER.size + len(str(self.inside).encode()) + _EXTRA
        raw = ranges.read_at(self.header, head + self.packed)
        if len(raw) < _LOCAL_HEADER.size or raw[:4] != b"PK\3\4":
            raise UnreadableError("damaged in the archive: no file begins where its directory says", AGAIN)
        _, name_length, extra_length = _LOCAL_HEADER.unpack_from(raw)
        start = _LOCAL_HEADER.size + name_length + extra_length
        if len(raw) < start + self.packed:
            return ranges.read_at(self.header + start, self.packed)
        return raw[start : start + self.packed]

    def _inflate(self, packed: bytes) -> bytes:
        stream = zlib_ng.decompressobj(wbits=_RAW_DEFLATE)
        try:
            head = stream.decompress(packed, min(self.size, 540))
            self._check_size(head)
            rest = stream.decompress(stream.unconsumed_tail, max(self.size - len(head), 1))
            if not stream.eof and stream.decompress(stream.unconsumed_tail, 1):
                raise UnreadableError(
                    f"it unpacks to more than the {self.size} bytes that the archive announces", AGAIN
                )
        except _DAMAGED as error:
            raise UnreadableError(f"damaged in the archive ({error})", AGAIN) from None
        return head + rest

    def _check_size(self, head: bytes) -> None:
        """Of a bomb nothing is unpacked but its head: a scan is as large as its own header says."""
        if is_nifti_name(self.name) and self.size > _SURPLUS and not is_gzip(head):
            # Here: nibabel takes a while to import, which listing an archive need not.
            from storage.scans.nifti_header import announced_bytes, parse_header

            announced = announced_bytes(parse_header(head))
            if self.size > announced + _SURPLUS:
                finding = f"the archive announces {self.size} bytes, the scan's own header {announced}"
                raise UnreadableError(finding, AGAIN)


def list_zip(ranges: Ranges) -> Listing:
    """The files of a zip archive. Raises InputError where its directory cannot be read."""
    try:
        with zipfile.ZipFile(as_file(ranges)) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError) as error:
        raise InputError(
            f"{ranges.uri} begins like a zip archive, but its directory, which comes last, cannot be read ({error}); "
            "the download may be incomplete: download it again"
        ) from None
    contents = Contents(archive=ranges.uri)
    for info in infos:
        # Some of Windows' own tools write the separators of Windows.
        inside = contents.place(info.filename.replace("\\", "/"))
        if inside is not None and not info.is_dir():
            contents.add(_as_member(info, inside, ranges))
    return contents.listing()


def _as_member(info: zipfile.ZipInfo, inside: PurePosixPath, ranges: Ranges) -> ZipMember:
    member = ZipMember(
        archive=ranges.uri,
        inside=inside,
        size=info.file_size,
        mtime_ns=_time_of(info),
        header=info.header_offset,
        packed=info.compress_size,
        deflated=info.compress_type == zipfile.ZIP_DEFLATED,
        crc=info.CRC,
        end=ranges.size,
        fault=_fault_of(info),
    )
    return checked(member, packed=member.packed if member.deflated else None)


def _fault_of(info: zipfile.ZipInfo) -> Fault | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        return Fault("encrypted", "unpack the archive with its password and name the folder")
    if kind not in (0, stat.S_IFREG):
        return Fault("a symbolic link, not a file" if stat.S_ISLNK(kind) else "no plain file")
    if info.compress_type not in _METHODS:
        return Fault(f"compressed by method {info.compress_type} of zip, wanted 0 (stored) or 8 (deflated)")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        return Fault(f"{info.file_size} bytes that take {info.compress_size}, uncompressed", AGAIN)
    return None


def _time_of(info: zipfile.ZipInfo) -> int:
    """Nanoseconds since 1970, the archive's hour taken for UTC's; the checksum stands where nanoseconds would.

    Zip counts in two seconds, and many archives have one time for all or none: what was replaced without another time
    is seen by its checksum.
    """
    try:
        time = datetime.datetime(*info.date_time, tzinfo=datetime.UTC)
    except ValueError:  # a month 0, say
        time = _EPOCH
    return int(time.timestamp()) * 10**9 + info.CRC % 10**9
