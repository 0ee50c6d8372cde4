"""Gzip to bytes, bounded and checked: truncation, a wrong checksum and trailing bytes are found, never read over.

zlib-ng takes a quarter of zlib's time on BraTS volumes; docs/storage.md has the measurements, isal's among them.
"""

from typing import cast

from zlib_ng import zlib_ng

# The package's stubs declare this class as an instance.
_DAMAGED = cast(type[Exception], zlib_ng.error)

_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # zlib's wbits for "a gzip header, a deflate stream and its CRC-32 and length"
# Bytes after the announced ones are drained in pieces, so that the stream's checksum is reached but no bomb goes off.
_SURPLUS = 1 << 20


class GzipError(Exception):
    """What is wrong with the compressed file, in words for a report."""


def is_gzip(raw: bytes) -> bool:
    """Whether the bytes begin as a gzip member, whatever the file is called."""
    return raw[:2] == _MAGIC


def gunzip_head(raw: bytes, size: int) -> bytes:
    """The first `size` decompressed bytes, or fewer where the stream ends before; raises GzipError."""
    member = zlib_ng.decompressobj(wbits=GZIP_WINDOW)
    try:
        head = member.decompress(raw, size)
    except _DAMAGED as error:
        raise GzipError(f"the gzip stream is damaged ({error})") from None
    if len(head) < size and not member.eof:
        raise GzipError(f"the gzip stream is truncated after {len(head)} bytes")
    return head


def gunzip(raw: bytes, expected: int) -> bytes:
    """All members of `raw`, which hold `expected` bytes and a few more at most; raises GzipError otherwise.

    Fewer bytes are returned as they are when the stream itself is sound.
    """
    parts: list[bytes] = []
    rest, size = raw, 0
    while rest:
        if not is_gzip(rest):
            if rest.strip(b"\0"):
                raise GzipError(f"{len(rest)} bytes that are not gzip follow the compressed data")
            break
        member = zlib_ng.decompressobj(wbits=GZIP_WINDOW)
        try:
            # The exact size spares the buffer's growth, which costs as much as the decompression.
            parts.append(member.decompress(rest, max(expected - size, 1)))
            size += len(parts[-1])
            while not member.eof:
                piece = member.decompress(member.unconsumed_tail, _SURPLUS)
                size += len(piece)
                if size > expected + _SURPLUS:
                    raise GzipError(f"it decompresses to more than the {expected} bytes that its header announces")
                if not piece and not member.eof:
                    raise GzipError(f"the gzip stream is truncated after {size} bytes")
                parts.append(piece)
        except _DAMAGED as error:
            raise GzipError(f"the gzip stream is damaged ({error})") from None
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)
