"""Gzip to bytes, bounded and checked: truncation, a wrong checksum and trailing bytes are found, never read over.

isal (Intel's ISA-L) takes a third of zlib's time on BraTS volumes; docs/storage.md has the measurements.
"""

from typing import cast

from isal import isal_zlib

# The package's stubs declare this class as an instance.
_DAMAGED = cast(type[Exception], isal_zlib.error)
_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's wbits for "a gzip header, a deflate stream and its CRC-32 and length"


class GzipError(Exception):
    """What is wrong with the compressed file, in words for a report."""


def is_gzip(raw: bytes) -> bool:
    """Whether the bytes begin as a gzip member, whatever the file is called."""
    return raw[:2] == _MAGIC


def gunzip_head(raw: bytes, size: int) -> bytes:
    """The first `size` decompressed bytes, or fewer where the file ends before; raises GzipError."""
    try:
        return bytes(isal_zlib.decompressobj(wbits=_GZIP_WINDOW).decompress(raw, size))
    except _DAMAGED as error:
        raise GzipError(f"the gzip stream is damaged ({error})") from None


def gunzip(raw: bytes, limit: int) -> bytes:
    """All members of `raw`, at most `limit` bytes in all; raises GzipError when damaged, truncated or longer."""
    parts: list[bytes] = []
    rest, left = raw, limit
    while rest:
        if not is_gzip(rest):
            if rest.strip(b"\0"):
                raise GzipError(f"{len(rest)} bytes that are not gzip follow the compressed data")
            break
        member = isal_zlib.decompressobj(wbits=_GZIP_WINDOW)
        try:
            # One more than allowed tells "exactly full" from "too long" without decompressing a bomb.
            parts.append(member.decompress(rest, left + 1))
        except _DAMAGED as error:
            raise GzipError(f"the gzip stream is damaged ({error})") from None
        left -= len(parts[-1])
        if left < 0:
            raise GzipError(f"it decompresses to more than the {limit} bytes that its header announces")
        if not member.eof:
            raise GzipError(f"the gzip stream is truncated after {limit - left} bytes")
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)
