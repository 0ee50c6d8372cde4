"""A store's arrays as zarr reads them, but for one thing: a missing chunk is damage, not fill values."""

import asyncio
import itertools
from typing import Any

import zarr
from obstore.exceptions import BaseError
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, StorePath

from storage.errors import CorruptStoreError
from storage.store.objects import Objects, pause_before_retry


def open_array(objects: Objects, path: str, metadata: dict[str, Any]) -> "zarr.Array[Any]":
    """The array at `path`, read-only, whose zarr.json says `metadata`."""
    return zarr.Array.from_dict(StorePath(_StrictStore(objects.backend, read_only=True), path), metadata)


class _StrictStore(ObjectStore[Any]):
    """Zarr reads a missing chunk as fill values; here a chunk that is not there is damage."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Buffer | None:
        for attempt in itertools.count():
            try:
                found = await super().get(key, prototype, byte_range)
                break
            except BaseError as error:
                await asyncio.sleep(pause_before_retry(error, attempt))
        if found is None and "/c/" in key:
            raise CorruptStoreError(f"{key} is missing from {self.store}; convert the case again")
        return found
