"""Decoded cases on a node's local disk, memory-mapped by every rank: the first use streams and fills, later ones copy.

One file a case, named by case id and digest: image voxels, then label voxels, then the crc32c of both. It is filled
under a temporary name and renamed, so a killed process leaves no half-written case; the crc is checked the first time a
process maps a file. The page cache is the RAM tier, shared by all ranks without a copy each. The folder's lock makes
room and reserves it before anything is written, so the bound holds with several processes filling at once.

Shapes: M modality, D H W voxels z y x of the stored grid.
"""

import errno
import fcntl
import glob
import hashlib
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from storage.cases.info import CaseArrays, CaseInfo
from storage.errors import CorruptStoreError, InputError
from storage.labels.tasks import Task
from storage.store.cohort_store import CohortStore

_SUFFIX = ".case"
_PARTIAL = ".partial"
_CRC_BYTES = 4
_PATIENCE_SECONDS = 600
_LOOK_AGAIN_SECONDS = 0.05


@dataclass(kw_only=True)
class _Mapped:
    """A file this process has mapped; `inode` tells whether the name still means the same file."""

    path: Path
    inode: int
    arrays: CaseArrays


class DecodedCaseCache:
    """Decoded cases of one store in `folder`, at most `max_bytes` of them; safe for several processes at once.

    `hits` and `misses` count this process's reads. Raises InputError when the largest case does not fit.
    """

    def __init__(self, store: CohortStore, folder: Path, *, max_bytes: int) -> None:
        self.store = store
        self.folder = folder / hashlib.sha256(store.uri.encode()).hexdigest()[:16]
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._mapped: dict[str, _Mapped] = {}
        largest = max((_file_bytes(info) for info in store.infos()), default=0)
        if largest > max_bytes:
            raise InputError(f"wanted a cache of at least {largest} bytes (the largest case), got {max_bytes}")
        self.folder.mkdir(parents=True, exist_ok=True)

    def info(self, case_id: str) -> CaseInfo:
        """The case's record, from the store's index."""
        return self.store.info(case_id)

    @property
    def task(self) -> Task:
        """The store's."""
        return self.store.task

    def read_case(self, case_id: str) -> CaseArrays:
        """The whole case as read-only memory maps: image MDHW, label DHW or None."""
        info = self.store.info(case_id)
        path = self._path(info)
        arrays = self._find(path, info)
        if arrays is None:
            with self._locked(f"{path.name}.lock"):  # a second rank waits here while the first streams the case
                arrays = self._find(path, info)
                if arrays is None:
                    self.misses += 1
                    arrays = self._fill(path, info, evict=True)
                    assert arrays is not None  # with evict it makes room or raises
                    return arrays
        self.hits += 1
        return arrays

    def holds(self, case_id: str) -> bool:
        """Whether the case is decoded already. Another process may evict it the next moment."""
        return self._path(self.store.info(case_id)).exists()

    def bytes_of(self, case_ids: Iterable[str]) -> int:
        """What these cases take in the folder, to compare with `max_bytes`."""
        return sum(_file_bytes(self.store.info(case_id)) for case_id in case_ids)

    def decode_ahead(self, case_id: str) -> bool:
        """Decode a case that nobody has asked for yet; False, and nothing done, where others would have to go for it.

        Nothing is done either for one that is there, or that someone is decoding. Counts as neither hit nor miss.
        """
        info = self.store.info(case_id)
        path = self._path(info)
        if path.exists():
            return True
        with self._locked(f"{path.name}.lock", wait=False) as ours:
            return not ours or path.exists() or self._fill(path, info, evict=False) is not None

    def _path(self, info: CaseInfo) -> Path:
        return self.folder / f"{info.case_id}-{info.digest[:16]}{_SUFFIX}"

    def _find(self, path: Path, info: CaseInfo) -> CaseArrays | None:
        """The mapped case, or None when it is not (or no longer, or not soundly) in the folder."""
        try:
            state = path.stat()
        except FileNotFoundError:
            self._mapped.pop(info.case_id, None)
            return None
        mapped = self._mapped.get(info.case_id)
        if mapped is None or mapped.inode != state.st_ino:
            arrays = _map(path, info)
            if arrays is None:  # evicted this moment, or damaged: then _fill puts a sound file in its place
                return None
            mapped = self._mapped[info.case_id] = _Mapped(path=path, inode=state.st_ino, arrays=arrays)
        # Eviction goes by this time, since many disks are mounted without access times. Another process may have
        # evicted the file since the stat; the map stays valid all the same.
        with suppress(FileNotFoundError):
            os.utime(path)
        return mapped.arrays

    def _fill(self, path: Path, info: CaseInfo, *, evict: bool) -> CaseArrays | None:
        """The case, decoded into the folder and mapped; None where there is no room. The caller holds its lock."""
        partial = path.with_name(f"{path.name}.{os.getpid()}{_PARTIAL}")
        try:
            if not self._reserve(path, partial, _file_bytes(info), evict=evict):
                return None
            # read_case compares the decoded voxels with the digests of the case's record.
            image_MDHW, label_DHW = self.store.read_case(info.case_id)
            with partial.open("r+b") as file:
                crc = 0
                for array in (image_MDHW, label_DHW):
                    if array is not None:
                        # A view, because making bytes of it would keep all other threads waiting for milliseconds.
                        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                        crc = google_crc32c.extend(crc, data)
                        file.write(data.data)
                file.write(crc.to_bytes(_CRC_BYTES, "little"))
            with self._locked("folder.lock"):  # whoever makes room must not meet it between its two names
                partial.rename(path)
                arrays = self._find(path, info)  # nor evict it before it is mapped
        except OSError as error:
            raise _explain(error, self.folder) from error
        finally:
            partial.unlink(missing_ok=True)  # there only if something failed
        if arrays is None:
            raise CorruptStoreError(f"{path} vanished while it was opened; give the cache a folder of its own")
        return arrays

    def _reserve(self, path: Path, partial: Path, size: int, *, evict: bool) -> bool:
        """Make room for `size` bytes and take it with an empty file of that size, in one step for all processes.

        Without `evict` no room is made: False where there is none. The caller holds the case's lock, so a partial file
        of this case is a dead process's.
        """
        for leftover in self.folder.glob(f"{glob.escape(path.name)}.*{_PARTIAL}"):
            leftover.unlink(missing_ok=True)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with self._locked("folder.lock"):
                if self._make_room(size, evict=evict):
                    with partial.open("xb") as file:
                        os.posix_fallocate(file.fileno(), 0, size)
                    return True
            if not evict:
                return False
            if time.monotonic() > deadline:
                raise InputError(
                    f"wanted {size} bytes in the cache {self.folder}, others fill all of its {self.max_bytes}; "
                    f"allow it more bytes"
                )
            time.sleep(_LOOK_AGAIN_SECONDS)

    def _make_room(self, size: int, *, evict: bool) -> bool:
        """Evict, if that is allowed, until `size` bytes fit; False where what stays leaves no room yet."""
        self._sweep_partials()
        files = []  # when last used, bytes, file
        for path in list(self.folder.iterdir()):
            if path.suffix in (_SUFFIX, _PARTIAL):
                with suppress(FileNotFoundError):  # found damaged, or given up, by another process since it was listed
                    state = path.stat()
                    files.append((state.st_mtime_ns, state.st_size, path))
        used = sum(file_bytes for _, file_bytes, _ in files)
        for _, file_bytes, path in sorted(files):
            if used + size <= self.max_bytes:
                break
            if evict and path.suffix == _SUFFIX:
                path.unlink(missing_ok=True)
                used -= file_bytes
        self._let_go_of_evicted()
        return used + size <= self.max_bytes

    def _let_go_of_evicted(self) -> None:
        """Unmap what this process or another has evicted: until then the disk keeps its blocks."""
        for case_id, mapped in list(self._mapped.items()):
            try:
                evicted = mapped.path.stat().st_ino != mapped.inode
            except FileNotFoundError:
                evicted = True
            if evicted:
                self._mapped.pop(case_id, None)

    def _sweep_partials(self) -> None:
        """Remove what killed processes left. A living one holds its case's lock."""
        for leftover in self.folder.glob(f"*{_PARTIAL}"):
            name = leftover.name.removesuffix(_PARTIAL).rsplit(".", 1)[0]
            with (self.folder / f"{name}.lock").open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                leftover.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock file `name`; the system lets it go when the process dies. Without `wait` it may say False."""
        with (self.folder / name).open("ab") as file:
            held = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held = False
            yield held


def _file_bytes(info: CaseInfo) -> int:
    arrays = [info.arrays["image"], *([info.arrays["label"]] if info.labelled else [])]
    return sum(math.prod(array.shape) * np.dtype(array.dtype).itemsize for array in arrays) + _CRC_BYTES


def _map(path: Path, info: CaseInfo) -> CaseArrays | None:
    """The file's arrays, or None when it is not what was written there."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (FileNotFoundError, ValueError):  # evicted this moment, or empty
        return None
    if data.size != _file_bytes(info):
        return None
    if google_crc32c.value(data[:-_CRC_BYTES]) != int.from_bytes(data[-_CRC_BYTES:].tobytes(), "little"):
        return None
    image = info.arrays["image"]
    end = math.prod(image.shape) * np.dtype(image.dtype).itemsize
    image_MDHW = data[:end].view(image.dtype).reshape(image.shape)
    label_DHW = data[end:-_CRC_BYTES].reshape(info.shape) if info.labelled else None
    return CaseArrays(image_MDHW, label_DHW)


def _explain(error: OSError, folder: Path) -> InputError:
    if error.errno == errno.ENOSPC:
        return InputError(
            f"the disk of the cache {folder} is full; free space, or give it another folder or fewer bytes"
        )
    return InputError(f"cannot write the cache {folder}: {error.strerror or error}; give it a writable folder")
