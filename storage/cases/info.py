"""What a store says of one case without reading a voxel: its record, as a dataclass and as the JSON that is stored.

The record is the attributes of the case's Zarr group; it is written last, so it also is the case's commit record.

Shapes: stored grids are (z, y, x) in LPS, sources' own grids are (x, y, z) in the order of the file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Affine = tuple[tuple[float, ...], ...]
Shape = tuple[int, int, int]

FORMAT_VERSION = 1


class CaseArrays(NamedTuple):
    """A case's or patch's voxels: image MDHW as stored (int16 unless that would lose something), label DHW or None."""

    image_MDHW: NDArray[Any]
    label_DHW: NDArray[np.uint8] | None


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file a case was made from; the digest tells whether it has changed since."""

    name: str
    sha256: str
    size: int
    mtime_ns: int
    volume: int | None = None


@dataclass(frozen=True, kw_only=True)
class ArrayRecord:
    """One Zarr array of a case: what it holds, and digests of its metadata file and of its decoded bytes."""

    shape: tuple[int, ...]
    dtype: str
    metadata_sha256: str
    content_sha256: str


@dataclass(frozen=True, kw_only=True)
class CaseInfo:
    """The record of one stored case.

    `shape` is the stored (cropped) grid and `bbox` its half-open box within `original_shape`, all z y x in LPS.
    `affine` takes voxel (x, y, z) of the whole LPS grid to millimetres; `source_shape` (x, y, z) and `source_affine`
    are the file's own, and `source_header` the base64 of the first scan's NIfTI header; it and `task` are empty in
    stores made before they were kept. `spacing` is z y x in millimetres. Statistics are per modality over the brain,
    the voxels where any modality is not 0, or all where the skull is not stripped; `percentiles` maps a percentage to
    one value per modality. `digest` covers all the rest. docs/store-format.md has every field.
    """

    case_id: str
    subject: str
    grade: str | None
    modalities: tuple[str, ...]
    labelled: bool
    label_convention: str
    label_lossy: bool
    shape: Shape
    bbox: Box
    original_shape: Shape
    orientation: str
    spacing: tuple[float, float, float]
    affine: Affine
    source_shape: Shape
    source_orientation: str
    source_affine: Affine
    brain_voxels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    percentiles: Mapping[str, tuple[float, ...]]
    region_voxels: Mapping[str, int]
    sources: Mapping[str, SourceFile]
    arrays: Mapping[str, ArrayRecord]
    notes: tuple[str, ...] = ()
    source_header: str = ""
    task: str = ""
    format_version: int = FORMAT_VERSION
    digest: str = ""

    def sealed(self) -> "CaseInfo":
        """The same record with its digest filled in."""
        return dataclasses.replace(self, digest=digest_of(self.to_attributes()))

    def to_attributes(self) -> dict[str, Any]:
        """The record as JSON-able attributes."""
        attributes = dict(vars(self))
        for name in ("sources", "arrays"):
            attributes[name] = {key: vars(each) for key, each in attributes[name].items()}
        for later in ("source_header", "task"):
            if not attributes[later]:
                del attributes[later]  # the digest of a record made before there was one is over the rest
        return attributes

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> "CaseInfo":
        """The inverse of `to_attributes`; raises KeyError, TypeError or ValueError for anything else."""
        values = {name: _frozen(value) for name, value in attributes.items()}
        values["sources"] = {name: SourceFile(**value) for name, value in values["sources"].items()}
        values["arrays"] = {name: ArrayRecord(**value) for name, value in values["arrays"].items()}
        return cls(**values)


def as_affine(affine: NDArray[np.float64]) -> Affine:
    """A 4x4 array as nested tuples, -0.0 written as 0.0."""
    return tuple(tuple(float(value) + 0.0 for value in row) for row in affine)


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """The one spelling of a document as bytes, so that bytes can be compared and digested."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(attributes: Mapping[str, Any]) -> str:
    """SHA-256 over everything but the digest itself."""
    return hashlib.sha256(canonical_json({**attributes, "digest": ""})).hexdigest()


def content_digest(array: NDArray[Any]) -> str:
    """SHA-256 of the voxels as little-endian bytes in C order."""
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()


def _frozen(value: Any) -> Any:
    """JSON lists as tuples at any depth, which is what frozen records hold."""
    if isinstance(value, list):
        return tuple(map(_frozen, value)) if value and isinstance(value[0], list) else tuple(value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value
