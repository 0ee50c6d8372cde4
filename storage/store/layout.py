"""How arrays lie in the store: chunks, shards, codecs; what a read costs. Measured in docs/storage.md.

A chunk is the unit of decoding: an axis is cut into equal parts of at most 96 voxels, all modalities stay together,
since a patch always wants all of them.
A shard is the unit of storage: one object holds a whole array, so a case costs one request an array, and a patch reads
the shard's index and then only its chunks. Each chunk and the index end with their own crc32c.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from storage.cases.info import content_digest

METADATA_KEY = "zarr.json"
DIMENSION_NAMES = {
    "image": ("modality", "z", "y", "x"),
    "label": ("z", "y", "x"),
    "foreground": ("region", "sample", "zyx"),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Largest chunk side in voxels; Blosc's compressor, level, shuffle and block; `sharded` makes an array one object.

    Blosc cuts a chunk into blocks of `block_bytes` and compresses each alone. Its own choice is far smaller, which
    suits a processor's cache; blocks of 1 MiB take half the time to encode and to decode, and 5 % less room.
    """

    chunk_side: int = 96
    compressor: Literal["zstd", "lz4", "lz4hc"] = "zstd"
    level: int = 1
    shuffle: Literal["shuffle", "bitshuffle", "noshuffle"] = "shuffle"
    block_bytes: int = 1 << 20
    sharded: bool = True

    def __post_init__(self) -> None:
        if self.chunk_side < 1:
            raise ValueError(f"wanted a chunk side of at least 1 voxel, got {self.chunk_side}")

    def chunks(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The chunk of array `name`: whole along modalities, at most `chunk_side` along voxels, all of the foreground.

        An axis is cut into equal parts. Chunks of a fixed side would be filled up with zeros at the far end: 192 of 140
        voxels along each axis are 2.6 times the bytes to encode and to decode.
        """
        spatial = {"image": 3, "label": 3}.get(name, 0)
        lead = shape[: len(shape) - spatial]
        return (*lead, *(-(-side // -(-side // self.chunk_side)) for side in shape[len(lead) :]))

    def shards(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shard that covers the whole array: a whole number of chunks a side."""
        if not self.sharded:
            return None
        chunks = self.chunks(name, shape)
        return tuple(-(-side // chunk) * chunk for side, chunk in zip(shape, chunks, strict=True))


DEFAULT_LAYOUT = Layout()


@dataclass(frozen=True, kw_only=True)
class EncodedArray:
    """A Zarr array as it will be stored: its objects by key below the array, zarr.json last, and its content digest."""

    objects: Mapping[str, bytes]
    content_sha256: str


def encode_array(name: str, array: NDArray[Any], layout: Layout = DEFAULT_LAYOUT) -> EncodedArray:
    """Encode one of the arrays of DIMENSION_NAMES.

    In memory, because zarr would write the metadata of the groups above it too: the case's, which is its commit
    record. The array's own attributes carry the content digest, so its metadata differs whenever its voxels do.
    """
    digest = content_digest(array)
    codecs: tuple[Any, ...] = (
        BloscCodec(
            typesize=array.dtype.itemsize,
            cname=layout.compressor,
            clevel=layout.level,
            shuffle=layout.shuffle,
            blocksize=layout.block_bytes,
        ),
        Crc32cCodec(),
    )
    encoded: dict[str, Buffer] = {}
    target = zarr.create_array(
        MemoryStore(encoded),
        shape=array.shape,
        dtype=array.dtype,
        chunks=layout.chunks(name, array.shape),
        shards=layout.shards(name, array.shape),
        compressors=codecs,
        fill_value=0,
        dimension_names=DIMENSION_NAMES[name],
        attributes={"content_sha256": digest},
        config={"write_empty_chunks": True},  # so that a chunk which is not there is always damage
    )
    target[...] = array
    keys = sorted(encoded, key=lambda key: (key == METADATA_KEY, key))
    return EncodedArray(objects={key: encoded[key].to_bytes() for key in keys}, content_sha256=digest)
