"""How arrays lie in the store: chunks, shards, codecs; what a read costs. Measured in docs/storage.md.

A chunk is the unit of decoding: an axis is cut into equal parts of at most 96 voxels, all modalities stay together,
since a patch always wants all of them.
A shard is the unit of storage: one object holds a whole array, so a case costs one request an array, and a patch reads
the shard's index and then only its chunks. Each chunk and the index end with their own crc32c.
"""

import hashlib
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from storage.cases.info import ArrayRecord, content_digest
from storage.store.index import ROOT_KEY

DIMENSION_NAMES = {
    "image": ("modality", "z", "y", "x"),
    "label": ("z", "y", "x"),
    "foreground": ("region", "sample", "zyx"),
}

_CHUNK_SIDE = 96  # voxels, at most
# Blosc cuts a chunk into blocks and compresses each alone. Its own choice is far smaller, which suits a processor's
# cache; blocks of 1 MiB take half the time to encode and to decode, and 5 % less room.
_BLOCK_BYTES = 1 << 20


def encode_array(name: str, array: NDArray[Any]) -> tuple[dict[str, bytes], ArrayRecord]:
    """One of the arrays of DIMENSION_NAMES as objects by key below the array, zarr.json last, and its record.

    In memory, because zarr would write the metadata of the groups above it too: the case's, which is its commit
    record. The array's own attributes carry the content digest, so its metadata differs whenever its voxels do.
    """
    digest = content_digest(array)
    chunks = chunk_shape(name, array.shape)
    encoded: dict[str, Buffer] = {}
    target = zarr.create_array(
        MemoryStore(encoded),
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunks,
        shards=tuple(-(-side // chunk) * chunk for side, chunk in zip(array.shape, chunks, strict=True)),
        compressors=(
            BloscCodec(
                typesize=array.dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle", blocksize=_BLOCK_BYTES
            ),
            Crc32cCodec(),
        ),
        fill_value=0,
        dimension_names=DIMENSION_NAMES[name],
        attributes={"content_sha256": digest},
        config={"write_empty_chunks": True},  # so that a chunk which is not there is always damage
    )
    target[...] = array
    objects = {key: encoded[key].to_bytes() for key in sorted(encoded, key=lambda key: (key == ROOT_KEY, key))}
    record = ArrayRecord(
        shape=array.shape,
        dtype=array.dtype.name,
        metadata_sha256=hashlib.sha256(objects[ROOT_KEY]).hexdigest(),
        content_sha256=digest,
    )
    return objects, record


def chunk_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The chunk of array `name`: whole along modalities, at most 96 along voxels, all of the foreground.

    An axis is cut into equal parts. Chunks of a fixed side would be filled up with zeros at the far end: 192 of 140
    voxels along each axis are 2.6 times the bytes to encode and to decode.
    """
    if name == "foreground":
        return shape
    return (*shape[:-3], *(-(-side // -(-side // _CHUNK_SIDE)) for side in shape[-3:]))
