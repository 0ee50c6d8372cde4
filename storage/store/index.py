"""The store's root: one zarr.json that says what the store is and lists every case, so that opening costs one read.

The file is in one canonical spelling and carries a digest of itself, so that any changed byte is found. Because of the
spelling a case's record can be cut out of it, and put into it, as it is: opening parses no record, and listing the
cases anew spells none.
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
# What surrounds the cases in a root's, and what every record begins with. Keys are sorted, and a quotation mark in a
# string is spelt with a backslash before it, so none of these is found anywhere else.
_BEFORE_CASES, _AFTER_CASES = b'{"cases":{', b'},"digest":"'
_RECORD = b'{"affine":[['
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
    """A store's root, decoded, but for the cases' records: of a large cohort few are looked at right away."""

    settings: StoreSettings
    records: Mapping[str, bytes]
    digest: str


def encode_group(attributes: Mapping[str, Any]) -> bytes:
    """A Zarr v3 group's metadata file."""
    return canonical_json({"attributes": attributes, "node_type": "group", "zarr_format": 3})


def encode_index(settings: StoreSettings, records: Mapping[str, bytes]) -> bytes:
    """The root's zarr.json; `records` are as `encode_record` spells them."""
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
    }
    if task.name:
        attributes["task"] = {"name": task.name, "regions": task.region_names, "skull_stripped": task.skull_stripped}
    listed = b",".join(json.dumps(case_id).encode() + b":" + records[case_id] for case_id in sorted(records))
    rest = canonical_json({**attributes, "digest": ""}).removeprefix(b'{"digest":"')
    before = _BEFORE_CASES + listed + _AFTER_CASES
    digest = hashlib.sha256(before + rest)
    return b"".join((_BEFORE, before, digest.hexdigest().encode(), rest, _AFTER))


def decode_index(raw: bytes | None, uri: str) -> Index:
    """The inverse of `encode_index`; raises InputError for a store that is not ours, CorruptStoreError for damage."""
    if raw is None:
        raise InputError(f"wanted a store made by ray_jobs/convert.py at {uri}, found no {ROOT_KEY}; check the path")
    start, end = len(_BEFORE + _BEFORE_CASES), raw.rfind(_AFTER_CASES)
    ours = raw.startswith(_BEFORE + _BEFORE_CASES) and end >= start
    # Without the cases; of what may be another's file all of it, to say what it is.
    attributes = decode_group(raw[:start] + raw[end:] if ours else raw, f"{uri}/{ROOT_KEY}")
    if attributes.get("format") != FORMAT:
        raise InputError(f"wanted a store made by ray_jobs/convert.py, {uri} is another Zarr group; check the path")
    if attributes.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{uri} has format_version {attributes.get('format_version')}, this program reads {FORMAT_VERSION}; "
            f"convert again or use the program that wrote it"
        )
    _check_seal(raw, attributes, f"{uri}/{ROOT_KEY}")
    convention = attributes["label_convention"]
    stored_by_source = {int(source): stored for source, stored in convention["stored_by_source"].items()}
    meant = LabelConvention(name=convention["name"], stored_by_source=stored_by_source)
    return Index(
        settings=StoreSettings(
            modalities=tuple(attributes["modalities"]), convention=meant, task=_decode_task(attributes, meant)
        ),
        records=_cut_records(raw[start:end]),
        digest=attributes["digest"],
    )


def _cut_records(listed: bytes) -> dict[str, bytes]:
    """The cases' records, which are one after the other in `listed`, each behind its id."""
    case_id, *pieces = (listed + b',"').split(b":" + _RECORD)
    records: dict[str, bytes] = {}
    for piece in pieces:
        record, _, next_id = piece.rpartition(b',"')
        records[json.loads(case_id)] = _RECORD + record
        case_id = b'"' + next_id
    return records


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


def encode_record(info: CaseInfo) -> bytes:
    """A case's record as the root holds it."""
    return canonical_json(info.to_attributes())


def decode_record(record: bytes) -> CaseInfo:
    """The inverse of `encode_record`."""
    return CaseInfo.from_attributes(json.loads(record))


def encode_sealed(attributes: Mapping[str, Any]) -> bytes:
    """A group's metadata file with a digest over its attributes."""
    return encode_group({**attributes, "digest": digest_of(attributes)})


def decode_sealed(raw: bytes, where: str) -> dict[str, Any]:
    """The inverse of `encode_sealed`; raises CorruptStoreError when a byte differs from what was written."""
    attributes = decode_group(raw, where)
    _check_seal(raw, attributes, where)
    return attributes


def _check_seal(raw: bytes, attributes: Mapping[str, Any], where: str) -> None:
    """The digest is taken over the bytes as they are, so nothing has to be spelt again to be compared."""
    digest = str(attributes.get("digest"))
    blank = raw.replace(f'"digest":"{digest}"'.encode(), b'"digest":""', 1)
    body = blank.removeprefix(_BEFORE).removesuffix(_AFTER)
    if len(body) + len(_BEFORE) + len(_AFTER) != len(blank) or hashlib.sha256(body).hexdigest() != digest:
        raise CorruptStoreError(f"{where} was changed since it was written (its digest differs); run convert.py again")


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
