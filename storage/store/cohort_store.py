"""CohortStore: a cohort as a Zarr v3 group, opened with one read and read by case or by patch.

Layout (docs/store-format.md has every attribute):
    zarr.json                     what the store is, and the record of every case
    cases/<case_id>/zarr.json     the case's record; written last, so a case without it does not exist
    cases/<case_id>/image         (modality, z, y, x), int16 unless that would lose something
    cases/<case_id>/label         (z, y, x) uint8; absent for an unlabelled case
    cases/<case_id>/foreground    (region, sample, zyx) int16; absent for an unlabelled case

Shapes: M modality, D H W voxels z y x of the stored grid, R region, N sampled voxel.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.cases.foreground import unpack_foreground
from storage.cases.info import CaseArrays, CaseInfo, Shape, content_digest
from storage.cases.patch import clip_patch, place_patch
from storage.errors import CorruptStoreError, InputError
from storage.labels.conventions import LabelConvention, convention_named
from storage.labels.tasks import GLI_2021_TASK, Task
from storage.store.index import (
    EMPTY_GROUP,
    ROOT_KEY,
    Index,
    StoreSettings,
    decode_case,
    decode_index,
    decode_record,
    encode_index,
    encode_record,
)
from storage.store.objects import Objects, explained, parse_uri

if TYPE_CHECKING:
    import zarr

CASES = "cases"


def case_key(case_id: str, name: str = "") -> str:
    """The key of a case's group, or of one array or file in it."""
    return f"{CASES}/{case_id}/{name}".rstrip("/")


class CohortStore:
    """A cohort, read-only but for `remove_case` and `rebuild_index`. Use `open_store` or `create_store`."""

    def __init__(self, objects: Objects, index: Index) -> None:
        self.objects = objects
        self.index = index
        self._infos: dict[str, CaseInfo] = {}
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @property
    def uri(self) -> str:
        """The path or URL, absolute."""
        return self.objects.uri

    @property
    def settings(self) -> StoreSettings:
        """Modalities and task."""
        return self.index.settings

    @property
    def task(self) -> Task:
        """What its labels mean and which regions they make."""
        return self.index.settings.task

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Every case, sorted."""
        return tuple(sorted(self.index.records))

    @property
    def digest(self) -> str:
        """SHA-256 over the index, and through its records over every voxel."""
        return self.index.digest

    def info(self, case_id: str) -> CaseInfo:
        """The case's record; costs no read. Raises InputError for an unknown case."""
        if case_id not in self._infos:
            record = self.index.records.get(case_id)
            if record is None:
                raise InputError(f"wanted case {case_id}, {self.uri} has {len(self.index.records)} cases without it")
            self._infos[case_id] = decode_record(record)
        return self._infos[case_id]

    def infos(self) -> tuple[CaseInfo, ...]:
        """The records of all cases, in the order of `case_ids`."""
        return tuple(self.info(case_id) for case_id in self.case_ids)

    def read_case(self, case_id: str) -> CaseArrays:
        """The whole case: image MDHW, label DHW or None, compared with the digests in its record.

        Raises CorruptStoreError naming case, array and chunk.
        """
        info = self.info(case_id)
        image_MDHW = self._read_whole(case_id, "image")
        return CaseArrays(image_MDHW, self._read_whole(case_id, "label") if info.labelled else None)

    def read_label(self, case_id: str) -> NDArray[np.uint8] | None:
        """The case's label_DHW alone, as `read_case` reads it; None where it has none."""
        return self._read_whole(case_id, "label") if self.info(case_id).labelled else None

    def read_patch(self, case_id: str, origin: Shape, shape: Shape) -> CaseArrays:
        """The patch (MDHW, DHW) of `shape` at `origin` (z y x of the stored grid); voxels outside the stored box are 0.

        Reads only the chunks that the patch touches. Raises CorruptStoreError naming case, array and chunk.
        """
        info = self.info(case_id)
        inside, target = clip_patch(origin, shape, info.shape)
        image_MDHW = self._read(case_id, "image", (slice(None), *inside))
        label_DHW = self._read(case_id, "label", inside) if info.labelled else None
        if image_MDHW.shape[1:] == shape:  # all of it lies inside: what was decoded is the patch
            return CaseArrays(image_MDHW, label_DHW)
        return place_patch(CaseArrays(image_MDHW, label_DHW), target, shape)

    def foreground(self, case_id: str) -> dict[str, NDArray[np.int32]]:
        """Sampled voxels of each region, int32 [N, 3] of z y x in the stored grid. Raises InputError if unlabelled."""
        if not self.info(case_id).labelled:
            raise InputError(f"case {case_id} of {self.uri} has no label, so no foreground; leave it out of training")
        return unpack_foreground(self._read_whole(case_id, "foreground"), self.task.region_names)

    def committed_cases(self) -> dict[str, CaseInfo]:
        """Every case with a sound commit record, read from the cases themselves: what a conversion may keep."""
        names = self.objects.folders(CASES)
        keys = [case_key(name, ROOT_KEY) for name in names]
        found: dict[str, CaseInfo] = {}
        for name, key, raw in zip(names, keys, self.objects.get_many(keys), strict=True):
            if raw is not None:
                with suppress(CorruptStoreError):  # converted again, like a case that is not there
                    found[name] = decode_case(raw, f"{self.uri}/{key}")
        return found

    def check_settings(self, cases: Mapping[str, CaseInfo]) -> None:
        """Raise InputError where one of `cases` has other modalities than this store, or labels it has no place for."""
        modalities = self.settings.modalities
        known = {*self.task.labels, *self.settings.convention.stored_by_source.values()}
        for case_id, info in cases.items():
            convention = self.convention_of(info)
            if info.modalities != modalities or not known.issuperset(convention.stored_by_source.values()):
                raise InputError(
                    f"wanted cases of {', '.join(modalities)} with labels {self.settings.convention.name} in "
                    f"{self.uri}, case {case_id} has {', '.join(info.modalities)} with labels {convention.name}; "
                    "give the flags it was made with"
                )

    def convention_of(self, info: CaseInfo) -> LabelConvention:
        """What the values of a case's own label file meant."""
        own = self.settings.convention
        return own if info.label_convention == own.name else convention_named(info.label_convention)

    def remove_case(self, case_id: str) -> None:
        """Uncommit a case, then remove its arrays; fine when there is none. The index is not touched."""
        self.objects.delete(case_key(case_id, ROOT_KEY))
        self.objects.delete_folder(case_key(case_id))

    def rebuild_index(self, cases: Mapping[str, CaseInfo] | None = None) -> None:
        """List the committed cases in the root, in one atomic write. For the driver of a conversion only."""
        found = self.committed_cases() if cases is None else cases
        raw = encode_index(self.settings, {case_id: encode_record(info) for case_id, info in found.items()})
        index = decode_index(raw, self.uri)
        if index.digest != self.digest:
            self.objects.put(ROOT_KEY, raw)
        self.index = index
        self._arrays.clear()
        self._infos = dict(found)

    def _open(self, case_id: str, name: str) -> "zarr.Array[Any]":
        # Here: importing zarr takes half a second, which opening a store need not.
        from storage.store.strict_reader import open_array

        path = case_key(case_id, name)
        if path not in self._arrays:
            raw = self.objects.get(f"{path}/{ROOT_KEY}")
            wanted = self.info(case_id).arrays[name].metadata_sha256
            if raw is None or hashlib.sha256(raw).hexdigest() != wanted:
                state = "is missing" if raw is None else "was changed since it was written"
                raise CorruptStoreError(
                    f"{self.uri}: case {case_id}, array {name}: its {ROOT_KEY} {state}; convert the case again"
                )
            self._arrays[path] = open_array(self.objects, path, json.loads(raw))
        return self._arrays[path]

    def _read_whole(self, case_id: str, name: str) -> NDArray[Any]:
        array = self._read(case_id, name, ...)
        if content_digest(array) != self.info(case_id).arrays[name].content_sha256:
            raise CorruptStoreError(
                f"{self.uri}: case {case_id}, array {name}: not the voxels that were written (SHA-256 differs); "
                f"convert the case again"
            )
        return array

    def _read(self, case_id: str, name: str, selection: Any) -> NDArray[Any]:
        with explained(self.uri):
            array = self._open(case_id, name)
            try:
                return np.asarray(array[selection])
            except CorruptStoreError as error:
                where = f"{self.uri}: case {case_id}, array {name}, every chunk: {error}"
                raise CorruptStoreError(where) from error
            except (ValueError, RuntimeError) as error:
                chunk = _find_damaged_chunk(array)
                raise CorruptStoreError(
                    f"{self.uri}: case {case_id}, array {name}, chunk {chunk}: {error}; convert the case again"
                ) from error


def create_store(
    uri: str | Path,
    *,
    task: Task = GLI_2021_TASK,
    modalities: Sequence[str] | None = None,
    convention: LabelConvention | None = None,
    repair: bool = False,
) -> CohortStore:
    """Make an empty store of `task`, or open the one that is there if its task holds `task` and its scans are the same.

    `modalities` are the task's, and `convention` is that of its values, where nothing else is said. With `repair` a
    damaged index is replaced by an empty one, for a driver that lists the cases anew, and so is one without a case.
    Raises InputError for a folder that holds something else, or a store with other settings.
    """
    objects = Objects(uri, create=True)
    settings = StoreSettings(
        modalities=task.scans if modalities is None else tuple(modalities),
        convention=convention or task.convention,
        task=task,
    )
    raw = objects.get(ROOT_KEY)
    if raw is not None and repair:
        try:
            if not decode_index(raw, objects.uri).records:
                raw = None
        except CorruptStoreError:
            raw = None
        if raw is None:
            rootless = CohortStore(objects, Index(settings=settings, records={}, digest=""))
            rootless.check_settings(rootless.committed_cases())  # else the new root would say what its cases do not
    if raw is None:
        if not objects.is_empty() and objects.get(f"{CASES}/{ROOT_KEY}") is None:
            raise InputError(f"wanted an empty place or a store at {objects.uri}, found other files; name a new folder")
        raw = encode_index(settings, {})
        objects.put(f"{CASES}/{ROOT_KEY}", EMPTY_GROUP)
        objects.put(ROOT_KEY, raw)
    store = CohortStore(objects, decode_index(raw, objects.uri))
    if store.settings.modalities != settings.modalities or not store.task.holds(task):
        raise InputError(
            f"wanted a store of {', '.join(settings.modalities)} for {task.name}, {objects.uri} has "
            f"{', '.join(store.settings.modalities)} for {store.task.name or store.settings.convention.name}; "
            "name another store"
        )
    return store


def open_store(uri: str | Path) -> CohortStore:
    """Open a store for reading: one read, however many cases. Raises InputError when it is not one of ours."""
    objects = Objects(uri)
    return CohortStore(objects, decode_index(objects.get(ROOT_KEY), objects.uri))


def find_store(uri: str | Path) -> CohortStore | None:
    """The store at `uri`, or None when nothing is there yet. Raises InputError when something else is."""
    _, folder = parse_uri(uri)
    if folder is not None and not folder.exists():
        return None
    objects = Objects(uri)
    raw = objects.get(ROOT_KEY)
    return None if raw is None else CohortStore(objects, decode_index(raw, objects.uri))


def _find_damaged_chunk(array: "zarr.Array[Any]") -> str:
    """The first chunk that cannot be decoded, as its indices; reads every chunk, but only after a failure."""
    sides = [range(-(-size // chunk)) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    damaged: list[tuple[int, ...]] = []
    total = 0
    for indices in itertools.product(*sides):
        total += 1
        window = tuple(slice(i * c, (i + 1) * c) for i, c in zip(indices, array.chunks, strict=True))
        try:
            array[window]
        except Exception:  # whatever the codec raises, this is the place
            damaged.append(indices)
    if len(damaged) == total and total > 1:
        return "index (no chunk can be found)"
    return ", ".join(str(indices) for indices in damaged) or "unknown (it reads now)"
