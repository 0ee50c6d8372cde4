"""The store's root: one zarr.json that says what the store is and lists every case, so that opening costs one read.

The file is in one canonical spelling and carries a digest of itself, so that any changed byte is found.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.cases.info import FORMAT_VERSION, CaseInfo, canonical_json, digest_of
from storage.errors import CorruptStoreError, InputError
from storage.labels.conventions import STORED_LABEL_NAMES, LabelConvention
from storage.labels.tasks import Task, find_task, task_of_old_store

FORMAT = "brats-stream"
ROOT_KEY = "zarr.json"
ASSIGNMENTS_KEY = f"splits/{ROOT_KEY}"  # see storage/splits/assignments.py
# Labels that there were when stores did not name their task yet; the root of such a store stays as it was.
_OLD_LABELS = 5
# What surrounds the attributes in a group's canonical spelling.
_BEFORE, _AFTER = b'{"attributes":', b',"node_type":"group","zarr_format":3}'
EMPTY_GROUP = canonical_json({"attributes": {}, "node_type": "group", "zarr_format": 3})


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """What every case of a store shares: the modalities, in order, and the task.

    `convention` is what the values of its first cases meant; each record names its own case's.
    """

    modalities: tuple[str, ...]
    convention: LabelConvention
    task: Task


@dataclass(frozen=True, kw_only=True)
class Index:
    """A store's root, decoded. Records stay as they were read: of a large cohort few are looked at right away."""

    settings: StoreSettings
    records: Mapping[str, Mapping[str, Any]]
    digest: str


def encode_group(attributes: Mapping[str, Any]) -> bytes:
    """A Zarr v3 group's metadata file."""
    return canonical_json({"attributes": attributes, "node_type": "group", "zarr_format": 3})


def encode_index(settings: StoreSettings, cases: Mapping[str, CaseInfo]) -> bytes:
    """The root's zarr.json."""
    convention, task = settings.convention, settings.task
    labels = STORED_LABEL_NAMES if task.name else STORED_LABEL_NAMES[:_OLD_LABELS]
    attributes: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "modalities": settings.modalities,
        "stored_labels": dict(enumerate(labels)),
        "region_labels": task.region_labels,
        "label_convention": {
            "name": convention.name,
            "stored_by_source": convention.stored_by_source,
            "lossy": convention.lossy,
        },
        "cases": {case_id: info.to_attributes() for case_id, info in cases.items()},
    }
    if task.name:
        attributes["task"] = {"name": task.name, "regions": task.region_names, "skull_stripped": task.skull_stripped}
    return encode_sealed(attributes)


def decode_index(raw: bytes | None, uri: str) -> Index:
    """The inverse of `encode_index`; raises InputError for a store that is not ours, CorruptStoreError for damage."""
    if raw is None:
        raise InputError(f"wanted a store made by ray_jobs/convert.py at {uri}, found no {ROOT_KEY}; check the path")
    attributes = decode_group(raw, f"{uri}/{ROOT_KEY}")
    if attributes.get("format") != FORMAT:
        raise InputError(f"wanted a store made by ray_jobs/convert.py, {uri} is another Zarr group; check the path")
    if attributes.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{uri} has format_version {attributes.get('format_version')}, this program reads {FORMAT_VERSION}; "
            f"convert again or use the program that wrote it"
        )
    decode_sealed(raw, f"{uri}/{ROOT_KEY}")
    convention = attributes["label_convention"]
    stored_by_source = {int(source): stored for source, stored in convention["stored_by_source"].items()}
    meant = LabelConvention(name=convention["name"], stored_by_source=stored_by_source)
    return Index(
        settings=StoreSettings(
            modalities=tuple(attributes["modalities"]), convention=meant, task=_decode_task(attributes, meant)
        ),
        records=attributes["cases"],
        digest=attributes["digest"],
    )


def _decode_task(attributes: Mapping[str, Any], convention: LabelConvention) -> Task:
    described = attributes.get("task")
    if described is None:
        return task_of_old_store(convention)
    return find_task(
        described["name"],
        convention=convention,
        regions={name: attributes["region_labels"][name] for name in described["regions"]},
        scans=tuple(attributes["modalities"]),
        skull_stripped=described["skull_stripped"],
    )


def encode_case(info: CaseInfo) -> bytes:
    """A case group's zarr.json: its commit record."""
    return encode_group(info.sealed().to_attributes())


def decode_case(raw: bytes, where: str) -> CaseInfo:
    """The inverse of `encode_case`; raises CorruptStoreError."""
    attributes = decode_sealed(raw, where)
    try:
        return CaseInfo.from_attributes(attributes)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptStoreError(f"{where} is not a case record ({error}); convert the case again") from None


def encode_sealed(attributes: Mapping[str, Any]) -> bytes:
    """A group's metadata file with a digest over its attributes."""
    return encode_group({**attributes, "digest": digest_of(attributes)})


def decode_sealed(raw: bytes, where: str) -> dict[str, Any]:
    """The inverse of `encode_sealed`; raises CorruptStoreError when a byte differs from what was written.

    The digest is taken over the bytes as they are, so nothing has to be spelt again to be compared.
    """
    attributes = decode_group(raw, where)
    digest = str(attributes.get("digest"))
    blank = raw.replace(f'"digest":"{digest}"'.encode(), b'"digest":""', 1)
    body = blank.removeprefix(_BEFORE).removesuffix(_AFTER)
    if len(body) + len(_BEFORE) + len(_AFTER) != len(blank) or hashlib.sha256(body).hexdigest() != digest:
        raise CorruptStoreError(f"{where} was changed since it was written (its digest differs); run convert.py again")
    return attributes


def decode_group(raw: bytes, where: str) -> dict[str, Any]:
    """The attributes of a group's zarr.json; raises CorruptStoreError when it is not one."""
    try:
        document = json.loads(raw)
        attributes = document["attributes"]
        if not isinstance(attributes, dict):
            raise TypeError(f"attributes are {type(attributes).__name__}")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStoreError(f"{where} is not a Zarr v3 group ({error}); convert again") from None
    return attributes
